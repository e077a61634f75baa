//! A JSON body, whatever is in it: no panic, the refusal says where, and what is taken depends on no blank.

#![no_main]

mod otlp;

use libfuzzer_sys::fuzz_target;
use tracegate::capture::Encoding;

fuzz_target!(|input: &[u8]| {
    let Some((signal, body)) = otlp::signal(input) else { return };
    let taken = otlp::taken(signal, Encoding::Json, body);
    let json = serde_json::from_slice::<serde_json::Value>(body);
    match &taken {
        Ok(_) => assert!(json.is_ok(), "what is no JSON is taken"),
        Err(reason) => assert!(!reason.is_empty()),
    }
    let Ok(json) = json else { return };
    let pretty = serde_json::to_vec_pretty(&json).expect("JSON is written");
    // A refusal quotes numbers, and these are written back only nearly the same.
    assert_eq!(otlp::taken(signal, Encoding::Json, &pretty).ok(), taken.ok());
});
