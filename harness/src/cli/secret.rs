//! Arguments that may be secrets. Clap repeats a value that it refuses, and a CI log is read by many.

use std::ffi::OsStr;

use clap::{
    Arg, Command, Error,
    builder::TypedValueParser,
    error::ErrorKind::{InvalidUtf8, ValueValidation},
};

/// Parses a value, and says of one that is refused what is wrong with it but not what it is.
#[derive(Clone)]
pub(super) struct Secret<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Secret<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        let refused = |kind, problem: &str| {
            let argument = argument.map_or_else(|| "an argument".to_owned(), |argument| format!("'{argument}'"));
            Error::raw(kind, format!("invalid value for {argument}: {problem}\n")).with_cmd(command)
        };
        let text = value.to_str().ok_or_else(|| refused(InvalidUtf8, "it is not UTF-8"))?;
        (self.0)(text).map_err(|problem| refused(ValueValidation, &problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        let even =
            |text: &str| text.len().is_multiple_of(2).then_some(text.len()).ok_or("its length is odd".to_owned());
        Command::new("test").arg(Arg::new("key").long("key").value_name("KEY").value_parser(Secret::<usize>(even)))
    }

    #[test]
    fn what_is_refused_is_named_with_its_reason_and_not_repeated() {
        let error = command().try_get_matches_from(["test", "--key", "hunter2"]).unwrap_err().to_string();
        assert!(error.starts_with("error: invalid value for '--key <KEY>': its length is odd\n"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_taken_is_parsed() {
        let matches = command().try_get_matches_from(["test", "--key", "secret"]).unwrap();
        assert_eq!(matches.get_one::<usize>("key"), Some(&6));
    }
}
