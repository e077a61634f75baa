//! Trace ids and contexts as X-Ray and W3C write them, parsed and formatted both ways.
//!
//! Sources: "X-Ray tracing header" in the X-Ray developer guide (`Root=1-5759e988-bd862e3fe1be46a994272793;
//! Parent=53995c3f42cd8ad8;Sampled=1`), and W3C Trace Context, 3.2.

use std::{fmt, str::FromStr};

use super::{IdError, SpanId, TraceId};

/// The header that X-Ray's context travels in.
pub const XRAY_HEADER: &str = "X-Amzn-Trace-Id";

/// Why some text is no trace context.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// An X-Ray trace id that is not three parts with `-` between them.
    #[error("{0:?} is not `1-8 hexadecimal digits-24 hexadecimal digits`")]
    NotXrayId(String),
    /// An X-Ray header without `Root`.
    #[error("no `Root` in {0:?}")]
    NoRoot(String),
    /// A part of an X-Ray header without `=`.
    #[error("{0:?} is not `key=value`")]
    NotKeyValue(String),
    /// `Root`, `Parent` or `Sampled` stands there twice.
    #[error("`{0}` stands there twice")]
    Twice(&'static str),
    /// A `Sampled` that is neither `0`, `1` nor `?`.
    #[error("`Sampled={0}` is neither 0, 1 nor ?")]
    Sampled(String),
    /// A `traceparent` that has not the parts of its version.
    #[error("{0:?} is not `version-trace id-parent id-flags`")]
    NotTraceparent(String),
    /// An id that is none.
    #[error("`{part}` is no id: {source}")]
    Id {
        /// `Root`, `Parent`, `trace-id` or `parent-id`.
        part: &'static str,
        /// What is wrong with it.
        source: IdError,
    },
}

/// The sampling decision in an X-Ray header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampled {
    /// `Sampled=1`.
    Yes,
    /// `Sampled=0`.
    No,
    /// `Sampled=?`: the receiver decides and tells the sender.
    Requested,
    /// No `Sampled` at all: nothing was decided.
    #[default]
    Deferred,
}

/// An `X-Amzn-Trace-Id` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XrayHeader {
    /// `Root`.
    pub root: TraceId,
    /// `Parent`; absent when a gateway added the header.
    pub parent: Option<SpanId>,
    /// `Sampled`.
    pub sampled: Sampled,
    /// Everything else in order: `Self`, `Lineage`, custom keys.
    pub others: Vec<(String, String)>,
}

/// Reads `1-63dd9630-1f7ec6c948e660f220ef3c92`.
///
/// # Errors
/// [`ContextError::NotXrayId`] for any other form, [`ContextError::Id`] for zeros.
pub fn parse_trace_id(text: &str) -> Result<TraceId, ContextError> {
    let not = || ContextError::NotXrayId(text.to_owned());
    let rest = text.strip_prefix("1-").ok_or_else(not)?;
    let (epoch, unique) = rest.split_once('-').ok_or_else(not)?;
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if epoch.len() != 8 || unique.len() != 24 || !hex(epoch) || !hex(unique) {
        return Err(not());
    }
    TraceId::from_hex(&format!("{epoch}{unique}")).map_err(|source| ContextError::Id { part: "Root", source })
}

/// Writes `1-63dd9630-1f7ec6c948e660f220ef3c92`.
pub fn format_trace_id(id: TraceId) -> String {
    let hex = id.to_string();
    format!("1-{}-{}", &hex[..8], &hex[8..])
}

/// Keys in any order and case, blanks around them allowed; `Root` is required.
impl FromStr for XrayHeader {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let (mut root, mut parent, mut sampled, mut others) = (None, None, None, Vec::new());
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| ContextError::NotKeyValue(part.to_owned()))?;
            let (key, value) = (key.trim(), value.trim());
            let twice = |is: bool, name| if is { Err(ContextError::Twice(name)) } else { Ok(()) };
            if key.eq_ignore_ascii_case("Root") {
                twice(root.is_some(), "Root")?;
                root = Some(parse_trace_id(value)?);
            } else if key.eq_ignore_ascii_case("Parent") {
                twice(parent.is_some(), "Parent")?;
                let id = SpanId::from_hex(value).map_err(|source| ContextError::Id { part: "Parent", source })?;
                parent = Some(id);
            } else if key.eq_ignore_ascii_case("Sampled") {
                twice(sampled.is_some(), "Sampled")?;
                sampled = Some(match value {
                    "1" => Sampled::Yes,
                    "0" => Sampled::No,
                    "?" => Sampled::Requested,
                    other => return Err(ContextError::Sampled(other.to_owned())),
                });
            } else {
                others.push((key.to_owned(), value.to_owned()));
            }
        }
        let root = root.ok_or_else(|| ContextError::NoRoot(text.to_owned()))?;
        Ok(Self { root, parent, sampled: sampled.unwrap_or_default(), others })
    }
}

impl fmt::Display for XrayHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root={}", format_trace_id(self.root))?;
        if let Some(parent) = self.parent {
            write!(f, ";Parent={parent}")?;
        }
        match self.sampled {
            Sampled::Yes => f.write_str(";Sampled=1")?,
            Sampled::No => f.write_str(";Sampled=0")?,
            Sampled::Requested => f.write_str(";Sampled=?")?,
            Sampled::Deferred => {}
        }
        self.others.iter().try_for_each(|(key, value)| write!(f, ";{key}={value}"))
    }
}

/// A `traceparent` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    /// `trace-id`.
    pub trace_id: TraceId,
    /// `parent-id`.
    pub parent_id: SpanId,
    /// `trace-flags`; the lowest bit is "sampled".
    pub flags: u8,
}

impl Traceparent {
    /// Whether the caller records its trace.
    pub const fn sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

/// Lower-case digits only, version `ff` refused, a version above 00 may have more parts (W3C Trace Context, 3.2.2).
impl FromStr for Traceparent {
    type Err = ContextError;

    fn from_str(text: &str) -> Result<Self, ContextError> {
        let not = || ContextError::NotTraceparent(text.to_owned());
        let parts: Vec<&str> = text.split('-').collect();
        let &[version, trace, parent, flags, ..] = parts.as_slice() else { return Err(not()) };
        let lower_hex = |part: &str, len: usize| {
            part.len() == len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let whole = lower_hex(version, 2) && lower_hex(trace, 32) && lower_hex(parent, 16) && lower_hex(flags, 2);
        if !whole || version == "ff" || (version == "00" && parts.len() != 4) {
            return Err(not());
        }
        Ok(Self {
            trace_id: TraceId::from_hex(trace).map_err(|source| ContextError::Id { part: "trace-id", source })?,
            parent_id: SpanId::from_hex(parent).map_err(|source| ContextError::Id { part: "parent-id", source })?,
            flags: u8::from_str_radix(flags, 16).map_err(|_| not())?,
        })
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=53995c3f42cd8ad8;Sampled=1";

    #[test]
    fn a_full_header_is_read_and_written_back_the_same() {
        let header: XrayHeader = FULL.parse().unwrap();
        assert_eq!(header.root.to_string(), "63dd96301f7ec6c948e660f220ef3c92");
        assert_eq!(header.parent.unwrap().to_string(), "53995c3f42cd8ad8");
        assert_eq!(header.sampled, Sampled::Yes);
        assert_eq!(header.to_string(), FULL);
    }

    #[test]
    fn keys_stand_in_any_order_and_unknown_ones_are_kept() {
        let text = "Self=1-a-b; Sampled=? ;Lineage=a87bd80c:0;Root=1-63dd9630-1f7ec6c948e660f220ef3c92";
        let header: XrayHeader = text.parse().unwrap();
        assert_eq!((header.parent, header.sampled), (None, Sampled::Requested));
        assert_eq!(
            header.to_string(),
            "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Sampled=?;Self=1-a-b;Lineage=a87bd80c:0"
        );
    }

    #[test]
    fn root_alone_decides_nothing_about_sampling() {
        let header: XrayHeader = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92".parse().unwrap();
        assert_eq!((header.parent, header.sampled), (None, Sampled::Deferred));
    }

    #[test]
    fn every_malformed_header_is_refused_with_its_reason() {
        let error = |text: &str| text.parse::<XrayHeader>().unwrap_err();
        assert!(matches!(error("Parent=53995c3f42cd8ad8"), ContextError::NoRoot(_)));
        assert!(matches!(error(""), ContextError::NoRoot(_)));
        assert!(matches!(error("Root=63dd96301f7ec6c948e660f220ef3c92"), ContextError::NotXrayId(_)));
        assert!(matches!(error("Root=1-63dd963-01f7ec6c948e660f220ef3c92"), ContextError::NotXrayId(_)));
        assert!(matches!(error("Root=1-00000000-000000000000000000000000"), ContextError::Id { part: "Root", .. }));
        assert!(matches!(error(&format!("{FULL};Root=1-a-b")), ContextError::Twice("Root")));
        assert!(matches!(error(&FULL.replace("Sampled=1", "Sampled=yes")), ContextError::Sampled(_)));
        assert!(matches!(error(&FULL.replace("53995c3f42cd8ad8", "5")), ContextError::Id { part: "Parent", .. }));
        assert!(matches!(error(&FULL.replace("Sampled=1", "Sampled")), ContextError::NotKeyValue(_)));
    }

    #[test]
    fn an_id_goes_to_the_form_of_xray_and_back() {
        let id: TraceId = "4bf92f3577b34da6a3ce929d0e0e4736".parse().unwrap();
        assert_eq!(format_trace_id(id), "1-4bf92f35-77b34da6a3ce929d0e0e4736");
        assert_eq!(parse_trace_id(&format_trace_id(id)), Ok(id));
        assert!(parse_trace_id("1-4bf92f35-77b34da6a3ce929d0e0e473é").is_err());
    }

    #[test]
    fn a_traceparent_is_read_and_written_back_the_same() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parsed: Traceparent = text.parse().unwrap();
        assert!(parsed.sampled());
        assert_eq!(parsed.to_string(), text);
        assert!(!text.replace("-01", "-00").parse::<Traceparent>().unwrap().sampled());
        assert!(text.replacen("00", "01", 1).replace("-01", "-01-extra").parse::<Traceparent>().is_ok());
    }

    #[test]
    fn every_malformed_traceparent_is_refused() {
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        ] {
            assert!(matches!(text.parse::<Traceparent>(), Err(ContextError::NotTraceparent(_))), "{text}");
        }
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01".parse::<Traceparent>();
        assert_eq!(zero, Err(ContextError::Id { part: "trace-id", source: IdError::Zero }));
    }
}
