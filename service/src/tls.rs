//! One way to make an HTTP client, for S3 and OTLP alike.

use std::sync::LazyLock;

use reqwest::Certificate;

/// Mozilla's root certificates, compiled in: an image `FROM scratch` has no certificate files, and
/// the same binary must trust the same authorities wherever it runs.
static ROOTS: LazyLock<Vec<Certificate>> = LazyLock::new(|| {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().filter_map(|der| Certificate::from_der(der).ok()).collect()
});

/// A client that trusts the compiled-in roots and nothing else.
pub fn client_builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder().tls_certs_only(ROOTS.iter().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compiled_in_root_is_usable() {
        assert_eq!(ROOTS.len(), webpki_root_certs::TLS_SERVER_ROOT_CERTS.len());
        assert!(!ROOTS.is_empty());
        client_builder().build().unwrap();
    }
}
