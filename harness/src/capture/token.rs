//! Secrets that are made for one run and shared by its two sides.

use std::fmt;

/// A secret. It is compared in a time that does not tell how much of a guess was right, and stands in no message.
#[derive(Clone)]
pub struct Token(String);

/// A token that would be guessed is none.
const SHORTEST: usize = 16;

impl Token {
    /// 128 random bits in hexadecimal digits.
    pub fn random() -> Self {
        Self(hex::encode(rand::random::<[u8; 16]>()))
    }

    /// One that was chosen; `None` when it is shorter than 16 characters, or is not made of visible ASCII alone, as a header needs it.
    pub fn chosen(text: &str) -> Option<Self> {
        (text.len() >= SHORTEST && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// Whether `given` is it.
    pub fn is(&self, given: &str) -> bool {
        same(given, &self.0)
    }

    /// The secret itself, for who shall have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// Compares in a time that does not tell how much of a guess was right.
pub(super) fn same(given: &str, secret: &str) -> bool {
    given.len() == secret.len() && given.bytes().zip(secret.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_itself_and_nothing_else() {
        let token = Token::chosen("0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["0123456789abcdeF", "0123456789abcde", "0123456789abcdef0", ""] {
            assert!(!token.is(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token");
    }

    #[test]
    fn a_token_that_is_short_or_fits_in_no_header_is_none() {
        assert!(Token::chosen("0123456789abcde").is_none());
        assert!(Token::chosen("0123456789abcde ").is_none());
        assert!(Token::chosen("0123456789abcdé").is_none());
        assert_ne!(Token::random().reveal(), Token::random().reveal());
    }
}
