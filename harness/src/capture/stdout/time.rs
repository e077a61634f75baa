//! Times as loggers write them.

use crate::telemetry::Value;

/// Nanoseconds since the Unix epoch of an RFC 3339 text, or of a number in seconds, milliseconds, microseconds or
/// nanoseconds (told apart by size). A local time without an offset says nothing that could be compared: `None`.
pub(super) fn unix_nano(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            if let Ok(timestamp) = text.trim().parse::<jiff::Timestamp>() {
                return u64::try_from(timestamp.as_nanosecond()).ok();
            }
            // Some encoders write epoch numbers as strings. Short ones are more likely counts than times.
            text.trim().parse::<f64>().ok().filter(|number| *number >= 1e8).and_then(from_number)
        }
        Value::Int(number) => u64::try_from(*number).ok().filter(|number| *number > 0).and_then(|number| {
            let scale = match number {
                ..=99_999_999_999 => 1_000_000_000,
                100_000_000_000..=99_999_999_999_999 => 1_000_000,
                100_000_000_000_000..=99_999_999_999_999_999 => 1_000,
                _ => 1,
            };
            number.checked_mul(scale)
        }),
        Value::Double(number) => from_number(*number),
        _ => None,
    }
}

fn from_number(number: f64) -> Option<u64> {
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    let scale = match number {
        ..1e11 => 1e9,
        ..1e14 => 1e6,
        ..1e17 => 1e3,
        _ => 1.0,
    };
    let nanos = number * scale;
    // `as` saturates, and a time beyond the year 2554 is none.
    (nanos < 1.8e19).then_some(nanos as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_an_epoch_number_is_the_same_moment() {
        let nanos = 1_795_439_025_000_000_000_u64;
        for number in [1_795_439_025_i64, 1_795_439_025_000, 1_795_439_025_000_000, 1_795_439_025_000_000_000] {
            assert_eq!(unix_nano(&Value::Int(number)), Some(nanos), "{number}");
        }
        assert_eq!(unix_nano(&Value::Double(1_795_439_025.5)), Some(nanos + 500_000_000));
    }

    #[test]
    fn rfc_3339_is_a_moment_and_a_local_time_is_none() {
        let nanos = Some(1_795_439_025_506_000_000);
        assert_eq!(unix_nano(&"2026-11-23T13:03:45.506Z".into()), nanos);
        assert_eq!(unix_nano(&"2026-11-23T14:03:45.506+01:00".into()), nanos);
        assert_eq!(unix_nano(&"2026-11-23 13:03:45,506+0000".into()), nanos);
        assert_eq!(unix_nano(&"2026-11-23 13:03:45,506".into()), None);
        assert_eq!(unix_nano(&"12".into()), None);
        assert_eq!(unix_nano(&Value::Double(f64::NAN)), None);
        assert_eq!(unix_nano(&Value::Int(-1)), None);
    }
}
