//! A protobuf body that the sink takes, written to a file and read back: the same items with all that they hold, the same
//! complaints, and from then on the same line.

#![no_main]

mod otlp;

use libfuzzer_sys::fuzz_target;
use tracegate::capture::{Encoding, file, index::index};

fuzz_target!(|input: &[u8]| {
    let Some((signal, body)) = otlp::signal(input) else { return };
    let body = bytes::Bytes::copy_from_slice(body);
    let Ok(sent) = index(signal, Encoding::Protobuf, &body) else { return };
    let request = otlp::request(signal, body);
    let line = file::line(&request).expect("what was taken is written");
    assert!(!line.contains('\n'), "{line}");
    let read = file::request(line.as_bytes()).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert_eq!(read.signal, signal, "{line}");
    let back = index(signal, Encoding::Json, &read.body).unwrap_or_else(|error| panic!("{error}: {line}"));
    // Numbers that are none are equal as text.
    assert_eq!(format!("{:?}", back.index.decode()), format!("{:?}", sent.index.decode()), "{line}");
    assert_eq!((back.faults, back.rejected), (sent.faults, sent.rejected), "{line}");
    // An empty list of packed numbers is gone by then.
    let again = file::line(&read).expect("what was read is written");
    let once_more = file::request(again.as_bytes()).and_then(|request| file::line(&request));
    assert_eq!(once_more.as_deref(), Ok(&*again));
});
