//! Within what bounds a sink receives, from whom, and over what.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use http::{HeaderName, HeaderValue, Method, header::RETRY_AFTER};
use nix::sys::resource::{Resource, getrlimit};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::BODY_LIMIT;

/// Bounds, required headers, origins and encryption of a sink.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most bytes of a body, as sent and after decompression.
    pub body_limit: usize,
    /// Most bytes of all bodies that are being received at once.
    pub held_limit: usize,
    /// How long a whole body may take.
    pub body_time: Duration,
    /// How long a connection has to bring its first request.
    pub first_request: Duration,
    /// Most connections at once. The one that was idle for the longest time goes first.
    pub connections: usize,
    /// Headers that every export request must have, with these values.
    pub required_headers: Vec<(HeaderName, HeaderValue)>,
    /// Origins whose pages may export; `*` stands for all.
    pub cors_origins: Vec<HeaderValue>,
    /// Present when only TLS is taken.
    pub tls: Option<Tls>,
    /// What is answered besides exports, on paths of its own. No page of any origin may read it.
    pub beside: Router,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            body_limit: BODY_LIMIT,
            held_limit: 512 << 20,
            body_time: Duration::from_secs(60),
            first_request: Duration::from_secs(30),
            connections: connections(),
            required_headers: Vec::new(),
            cors_origins: Vec::new(),
            tls: None,
            beside: Router::new(),
        }
    }
}

/// Half of the descriptors that this process may have, so that files, pipes and its own clients have theirs.
fn connections() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from(descriptors / 2).unwrap_or(usize::MAX).clamp(16, 16_384)
}

impl Settings {
    /// The router behind what browsers ask of it: a preflight request is answered, and the origin echoed.
    pub(super) fn layered(&self, router: Router) -> Router {
        if self.cors_origins.is_empty() {
            return router;
        }
        let any = self.cors_origins.iter().any(|origin| origin == "*");
        let origins =
            if any { AllowOrigin::mirror_request() } else { AllowOrigin::list(self.cors_origins.iter().cloned()) };
        let cors = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::POST])
            // Exporters may be configured with any header.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([RETRY_AFTER])
            .max_age(Duration::from_secs(3600));
        router.layer(cors)
    }
}

/// What encrypts; made of [`TlsFiles`].
#[derive(Clone)]
pub struct Tls(pub(super) TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// The PEM files of an encrypted sink.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, and behind it those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Certificates of authorities; a client must then have a certificate of one of them.
    pub client_ca: Option<PathBuf>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable, or holds nothing of what it should.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate, key and authorities do not fit together.
    #[error("the certificate {} and the key {} cannot be used: {reason}", certificate.display(), key.display())]
    Unusable {
        /// Which certificate.
        certificate: PathBuf,
        /// Which key.
        key: PathBuf,
        /// What TLS says.
        reason: String,
    },
}

impl TlsFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn load(&self) -> Result<Tls, TlsError> {
        let unusable = |reason: String| TlsError::Unusable {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            reason,
        };
        let certificates = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|error| file(&self.key, format!("no private key in PEM: {error}")))?;
        // Named, because another crate of this process may have chosen another one.
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in self::certificates(path)? {
                    roots.add(certificate).map_err(|error: rustls::Error| file(path, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| file(path, error.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(|error| unusable(error.to_string()))?;
        // gRPC insists on h2; what agrees on nothing is told apart by its first bytes, as without TLS.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| file(path, format!("not PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(file(path, "no certificate in PEM".into()));
    }
    Ok(certificates)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error: io::Error| file(path, error.to_string()))
}

fn file(path: &Path, reason: String) -> TlsError {
    TlsError::File { path: path.to_owned(), reason }
}
