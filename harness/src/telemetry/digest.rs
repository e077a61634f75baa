//! What some texts are, in a number.

use aws_lc_rs::digest::{Context, SHA256};

/// The first 64 bits of the SHA-256 of texts, each with its length before it. The same in every build and on every machine,
/// which the standard library's hashes are not, so that it may stand in a file.
pub fn digest(parts: &[impl AsRef<[u8]>]) -> u64 {
    let mut context = Context::new(&SHA256);
    for part in parts {
        let part = part.as_ref();
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&context.finish().as_ref()[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_same_in_every_build_and_tells_where_one_text_ends() {
        assert_eq!(digest(&[""; 0]), 0xe3b0_c442_98fc_1c14, "SHA-256 of nothing, FIPS 180-4");
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab".to_owned(), "c".to_owned()]));
    }
}
