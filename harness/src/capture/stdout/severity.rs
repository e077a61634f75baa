//! Severity by the names and numbers that loggers use.

use crate::telemetry::{Severity, Value};

/// A severity by its text (`INFO`, `warning`, `INFO+1` of slog) or by the numbers of pino and bunyan (10 to 60).
pub(super) fn severity(value: &Value) -> Option<Severity> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(Severity { number: number(text), text: text.clone() }),
        Value::Int(level) => {
            let number = match level {
                10..=19 => 1,
                20..=29 => 5,
                30..=39 => 9,
                40..=49 => 13,
                50..=59 => 17,
                60..=69 => 21,
                _ => 0,
            };
            Some(Severity { number, text: level.to_string() })
        }
        _ => None,
    }
}

/// `SeverityNumber` of a text, 0 for one that is not known (logs data model, "Mapping of SeverityNumber").
fn number(text: &str) -> u8 {
    let name = text.trim().split(['+', '-']).next().unwrap_or_default().to_ascii_uppercase();
    match name.as_str() {
        "TRACE" | "VERBOSE" | "FINEST" | "VRB" | "TRC" => 1,
        "DEBUG" | "DBG" | "FINE" | "D" => 5,
        "INFO" | "INFORMATION" | "INFORMATIONAL" | "NOTICE" | "INF" | "LOG" | "I" => 9,
        "WARN" | "WARNING" | "WRN" | "W" => 13,
        "ERROR" | "ERR" | "SEVERE" | "EROR" | "E" => 17,
        "FATAL" | "CRITICAL" | "CRIT" | "PANIC" | "DPANIC" | "ALERT" | "EMERG" | "EMERGENCY" | "FTL" | "F" => 21,
        _ => 0,
    }
}

/// Whether a text is a level and nothing else.
pub(super) fn is_level(text: &str) -> bool {
    number(text) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_case_and_the_numbers_of_pino_have_a_severity_number() {
        for (text, expected) in [("INFO", 9), ("warning", 13), ("WARN", 13), ("critical", 21), ("INFO+2", 9), ("x", 0)]
        {
            assert_eq!(severity(&text.into()).unwrap().number, expected, "{text}");
        }
        assert_eq!(severity(&Value::Int(30)).unwrap(), Severity { number: 9, text: "30".into() });
    }

    #[test]
    fn nothing_and_an_empty_text_are_no_severity() {
        assert_eq!(severity(&Value::Empty), None);
        assert_eq!(severity(&" ".into()), None);
    }
}
