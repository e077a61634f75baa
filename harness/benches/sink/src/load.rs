//! A load generator that costs little: bodies are made before, and only their trace ids change from one request to the next.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;

/// Spans of a request: what SDKs export at once.
pub const SPANS: usize = 512;
/// Spans of a trace.
pub const IN_TRACE: usize = 4;

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn number(key: &str, value: i64) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::IntValue(value)) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn span(trace: u64, at: u8) -> Span {
    let mut trace_id = b"TRACE-ID________".to_vec();
    trace_id[8..].copy_from_slice(&(trace + 1).to_be_bytes());
    let id = |at: u8| [trace.to_be_bytes()[6], trace.to_be_bytes()[7], 1, 2, 3, 4, 5, at + 1].to_vec();
    let start = 1_700_000_000_000_000_000 + trace * 1000;
    Span {
        trace_id,
        span_id: id(at),
        parent_span_id: if at == 0 { Vec::new() } else { id(0) },
        name: if at == 0 { "GET /files/{name}".into() } else { format!("storage get {at}") },
        kind: if at == 0 { 2 } else { 1 },
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1_000_000,
        attributes: vec![
            text("http.request.method", "GET"),
            text("url.path", "/files/a-name-of-some-length.txt"),
            text("http.route", "/files/{name}"),
            number("http.response.status_code", 200),
            text("server.address", "127.0.0.1"),
            number("server.port", 8080),
            text("network.protocol.version", "1.1"),
            text("user_agent.original", "a-client/1.0 (bench; of a usual length)"),
            number("thread.id", 12),
            text("code.function.name", "handler"),
        ],
        status: Some(Status::default()),
        flags: 0x101,
        ..Default::default()
    }
}

/// A request whose trace ids can be changed in place.
pub struct Body {
    pub bytes: Vec<u8>,
    ids: Vec<usize>,
}

impl Body {
    pub fn new() -> Self {
        let spans = (0..SPANS).map(|n| span((n / IN_TRACE) as u64, (n % IN_TRACE) as u8)).collect();
        let scope = InstrumentationScope { name: "bench".into(), version: "1.0".into(), ..Default::default() };
        let resource = Resource {
            attributes: vec![text("service.name", "bench"), text("service.instance.id", "a"), number("process.pid", 1)],
            ..Default::default()
        };
        let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..Default::default() }];
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans, ..Default::default() }],
        };
        let bytes = request.encode_to_vec();
        let ids: Vec<usize> =
            bytes.windows(8).enumerate().filter(|(_, window)| *window == b"TRACE-ID").map(|(at, _)| at).collect();
        assert_eq!(ids.len(), SPANS);
        Self { bytes, ids }
    }

    /// Gives every trace of it an id that no other request has.
    pub fn renew(&mut self, request: u64) {
        for &at in &self.ids {
            self.bytes[at..at + 8].copy_from_slice(&(request + 1).to_be_bytes());
        }
    }
}

/// Sends requests one after the other over HTTP/1.1.
pub struct Http {
    stream: TcpStream,
    message: Vec<u8>,
    head: usize,
    ids: Vec<usize>,
}

impl Http {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let body = Body::new();
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: {address}\r\nuser-agent: bench\r\ncontent-type: application/x-protobuf\r\n\
             content-length: {}\r\n\r\n",
            body.bytes.len()
        );
        let message = [head.as_bytes(), &body.bytes].concat();
        Ok(Self { stream, message, head: head.len(), ids: body.ids })
    }

    pub fn send(&mut self, request: u64) -> io::Result<()> {
        for &at in &self.ids {
            let at = self.head + at;
            self.message[at..at + 8].copy_from_slice(&(request + 1).to_be_bytes());
        }
        self.stream.write_all(&self.message)?;
        answered(&mut self.stream)
    }
}

/// Posts a body on a connection that is open.
pub fn post(stream: &mut TcpStream, path: &str, body: &[u8]) -> io::Result<()> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    answered(stream)
}

fn answered(stream: &mut TcpStream) -> io::Result<()> {
    let mut answer = [0; 4096];
    let mut length = 0;
    loop {
        let read = stream.read(&mut answer[length..])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
        let text = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let expected =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        if body.len() >= expected.unwrap_or_default() {
            assert!(head.starts_with("http/1.1 200"), "{head}");
            return Ok(());
        }
    }
}

/// Sends calls one after the other over HTTP/2 without a client library: the frames are made before.
pub struct Grpc {
    stream: TcpStream,
    /// HEADERS and DATA frames of one call.
    call: Vec<u8>,
    /// Where the frames begin.
    frames: Vec<usize>,
    ids: Vec<usize>,
    next: u32,
    window: i64,
    initial: i64,
    input: Vec<u8>,
}

/// The payload of a DATA frame: the least that every peer takes at once.
const FRAME: usize = 16_384;

impl Grpc {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        let body = Body::new();
        let mut message = vec![0];
        message.extend((body.bytes.len() as u32).to_be_bytes());
        message.extend(&body.bytes);
        let mut call = Vec::new();
        let mut frames = Vec::new();
        let mut places = vec![0; message.len()];
        let mut frame = |kind: u8, flags: u8, payload: &[u8], call: &mut Vec<u8>| {
            frames.push(call.len());
            call.extend(&(payload.len() as u32).to_be_bytes()[1..]);
            call.extend([kind, flags, 0, 0, 0, 0]);
            call.extend(payload);
        };
        frame(1, 4, &headers(address), &mut call);
        let chunks = message.chunks(FRAME).count();
        for (n, chunk) in message.chunks(FRAME).enumerate() {
            let flags = u8::from(n + 1 == chunks);
            frame(0, flags, chunk, &mut call);
            let from = call.len() - chunk.len();
            (0..chunk.len()).for_each(|at| places[n * FRAME + at] = from + at);
        }
        // An id may lie in two frames, so each of its bytes has a place.
        let ids = body.ids.iter().flat_map(|at| (0..8).map(move |byte| at + 5 + byte)).map(|at| places[at]).collect();
        Ok(Self { stream, call, frames, ids, next: 1, window: 65_535, initial: 65_535, input: Vec::new() })
    }

    pub fn send(&mut self, request: u64) -> io::Result<()> {
        let id = (request + 1).to_be_bytes();
        for (n, &at) in self.ids.iter().enumerate() {
            self.call[at] = id[n % 8];
        }
        let stream = self.next;
        self.next += 2;
        for &at in &self.frames {
            self.call[at + 5..at + 9].copy_from_slice(&stream.to_be_bytes());
        }
        let mut left = self.initial;
        let mut sent = 0;
        let mut at = 0;
        let mut frame = 0;
        let mut over = false;
        while at < self.call.len() {
            // As many frames as the windows let through, in one write.
            while frame < self.frames.len() {
                let end = self.frames.get(frame + 1).copied().unwrap_or(self.call.len());
                let payload = (end - self.frames[frame] - 9) as i64;
                let counted = if frame == 0 { 0 } else { payload };
                if counted > self.window.min(left) {
                    break;
                }
                self.window -= counted;
                left -= counted;
                at = end;
                frame += 1;
            }
            if at > sent {
                self.stream.write_all(&self.call[sent..at])?;
                sent = at;
            } else {
                over |= self.read(stream, &mut left)?;
            }
        }
        while !over {
            over = self.read(stream, &mut left)?;
        }
        Ok(())
    }

    /// Reads one frame; whether the call is over.
    fn read(&mut self, stream: u32, left: &mut i64) -> io::Result<bool> {
        while self.input.len() < 9 || self.input.len() < 9 + length(&self.input) {
            let mut buffer = [0; 4096];
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend(&buffer[..read]);
        }
        let whole = 9 + length(&self.input);
        let frame: Vec<u8> = self.input.drain(..whole).collect();
        let (kind, flags, payload) = (frame[3], frame[4], &frame[9..]);
        let of = u32::from_be_bytes([frame[5] & 0x7f, frame[6], frame[7], frame[8]]);
        match kind {
            // SETTINGS
            4 if flags & 1 == 0 => {
                for setting in payload.chunks_exact(6) {
                    if setting[..2] == [0, 4] {
                        let initial = i64::from(u32::from_be_bytes(setting[2..].try_into().unwrap()));
                        *left += initial - self.initial;
                        self.initial = initial;
                    }
                }
                self.stream.write_all(b"\0\0\0\x04\x01\0\0\0\0")?;
            }
            // PING
            6 if flags & 1 == 0 => {
                self.stream.write_all(&[b"\0\0\x08\x06\x01\0\0\0\0", payload].concat())?;
            }
            // WINDOW_UPDATE
            8 => {
                let more = i64::from(u32::from_be_bytes(payload.try_into().unwrap()) & 0x7fff_ffff);
                if of == 0 {
                    self.window += more;
                } else if of == stream {
                    *left += more;
                }
            }
            3 | 7 => panic!("reset or told to go away: {payload:?}"),
            // HEADERS or DATA that end the stream.
            0 | 1 if of == stream && flags & 1 == 1 => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}

fn length(head: &[u8]) -> usize {
    u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize
}

/// HPACK, literals without indexing.
fn headers(address: SocketAddr) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/opentelemetry.proto.collector.trace.v1.TraceService/Export"),
        (":authority", &address.to_string()),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "bench"),
    ] {
        block.push(0);
        block.push(name.len() as u8);
        block.extend(name.as_bytes());
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    }
    block
}
