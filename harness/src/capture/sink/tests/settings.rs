//! Who may export: browsers' pages, those with the required header, those with a certificate.

use std::path::PathBuf;

use ::http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::StatusCode;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use super::{super::settings::TlsFiles, *};

fn origins(origins: &[&str]) -> Settings {
    let cors_origins = origins.iter().map(|origin| origin.parse().unwrap()).collect();
    Settings { cors_origins, ..Settings::default() }
}

async fn preflight(fixture: &Fixture, origin: &str) -> reqwest::Response {
    let request = reqwest::Client::new().request(Method::OPTIONS, fixture.url("/v1/traces"));
    let request = request.header("origin", origin).header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "content-type,x-api-key").send().await.unwrap()
}

#[tokio::test]
async fn a_preflight_request_is_answered_with_the_origin_and_the_headers_it_asked_for() {
    let fixture = Fixture::with(origins(&["http://a.example", "http://b.example"])).await;
    let response = preflight(&fixture, "http://b.example").await;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers["access-control-allow-origin"], "http://b.example");
    assert_eq!(headers["access-control-allow-methods"], "POST");
    assert_eq!(headers["access-control-allow-headers"], "content-type,x-api-key");
    let any = Fixture::with(origins(&["*"])).await;
    assert_eq!(preflight(&any, "http://c.example").await.headers()["access-control-allow-origin"], "http://c.example");
}

#[tokio::test]
async fn another_origin_is_not_allowed_and_without_the_setting_none_is() {
    let fixture = Fixture::with(origins(&["http://a.example"])).await;
    let response = preflight(&fixture, "http://c.example").await;
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let off = Fixture::new().await;
    let response = preflight(&off, "http://a.example").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(!response.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn an_export_and_its_refusal_can_be_read_by_the_page() {
    let fixture = Fixture::with(origins(&["*"])).await;
    for (content_type, status) in [(JSON, StatusCode::OK), ("text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE)] {
        let headers = [("content-type", content_type), ("origin", "http://a.example")];
        let response = fixture.post("/v1/traces", &headers, "{}").await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["access-control-allow-origin"], "http://a.example");
    }
}

fn with_key() -> Settings {
    let required_headers = vec![("x-api-key".parse().unwrap(), "s3cret-value".parse().unwrap())];
    Settings { required_headers, ..origins(&["*"]) }
}

#[tokio::test]
async fn what_has_the_required_header_is_taken_over_both_transports() {
    let fixture = Fixture::with(with_key()).await;
    let headers = [("content-type", PROTOBUF), ("x-api-key", "s3cret-value")];
    let response = fixture.post("/v1/traces", &headers, one_span().encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::OK);
    let mut call = tonic::Request::new(one_span());
    call.metadata_mut().insert("x-api-key", "s3cret-value".parse().unwrap());
    TraceServiceClient::new(fixture.channel().await).export(call).await.unwrap();
    assert_eq!(fixture.span_names().len(), 2);
    // A preflight request cannot have it.
    assert_eq!(preflight(&fixture, "http://a.example").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn what_lacks_the_required_header_is_refused_by_name_and_the_value_is_never_told() {
    let fixture = Fixture::with(with_key()).await;
    let response = fixture.post("/v1/traces", &[("content-type", JSON)], "{}").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let status = json_of(response).await;
    assert_eq!(status["message"], "the header x-api-key is required");
    let mut call = tonic::Request::new(one_span());
    call.metadata_mut().insert("x-api-key", "other".parse().unwrap());
    let status = TraceServiceClient::new(fixture.channel().await).export(call).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert_eq!(status.message(), "the header x-api-key has another value than the required one");
    let faults = fixture.faults();
    assert_eq!((faults.len(), fixture.span_names().len()), (2, 0));
    assert!(!faults.join(" ").contains("s3cret") && !faults.join(" ").contains("other\""), "{faults:?}");
}

/// An authority with a server's and a client's certificate, as PEM files in a folder.
struct Authority {
    folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder: tempfile::tempdir().unwrap(), ca };
        authority.write("ca.pem", &authority.ca.pem());
        authority
    }

    fn write(&self, name: &str, pem: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, &self.ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn files(&self, mutual: bool) -> TlsFiles {
        let (certificate, key) = self.issue("localhost");
        let client_ca = mutual.then(|| self.folder.path().join("ca.pem"));
        TlsFiles { certificate: self.write("cert.pem", &certificate), key: self.write("key.pem", &key), client_ca }
    }

    async fn sink(&self, mutual: bool) -> Fixture {
        let tls = Some(self.files(mutual).load().unwrap());
        Fixture::with(Settings { tls, ..Settings::default() }).await
    }

    /// What a client that trusts this authority is answered; `own` is its certificate and key.
    async fn export(&self, fixture: &Fixture, own: Option<(String, String)>, alpn: &[u8]) -> Result<u16, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let connection = TcpStream::connect(fixture.sink.address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connected = TlsConnector::from(Arc::new(config)).connect(name, connection).await;
        let connected = TokioIo::new(connected.map_err(|error| error.to_string())?);
        let body = http_body_util::Full::new(Bytes::from(one_span().encode_to_vec()));
        let request = ::http::Request::post("https://localhost/v1/traces").header("content-type", PROTOBUF);
        let request = request.header("host", "localhost").body(body).unwrap();
        let response = if alpn == b"h2" {
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), connected)
                .await
                .map_err(|e| e.to_string())?;
            tokio::spawn(connection);
            sender.send_request(request).await
        } else {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(connected).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            sender.send_request(request).await
        };
        response.map(|response| response.status().as_u16()).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn over_tls_both_versions_of_http_are_taken() {
    let authority = Authority::new();
    let fixture = authority.sink(false).await;
    assert_eq!(authority.export(&fixture, None, b"http/1.1").await, Ok(200));
    assert_eq!(authority.export(&fixture, None, b"h2").await, Ok(200));
    assert_eq!(fixture.span_names().len(), 2);
}

#[tokio::test]
async fn what_does_not_speak_tls_is_refused_and_noted() {
    let fixture = Authority::new().sink(false).await;
    let plain = reqwest::Client::new().post(fixture.url("/v1/traces")).header("content-type", JSON).body("{}");
    assert!(plain.send().await.is_err());
    assert!(fixture.notes()[0].contains("its TLS handshake failed"), "{:?}", fixture.notes());
}

#[tokio::test]
async fn mutual_tls_takes_clients_of_its_authority_and_nobody_else() {
    let authority = Authority::new();
    let fixture = authority.sink(true).await;
    let own = authority.issue("client");
    assert_eq!(authority.export(&fixture, Some(own), b"h2").await, Ok(200));
    assert!(authority.export(&fixture, None, b"h2").await.is_err());
    let foreign = Authority::new().issue("client");
    assert!(authority.export(&fixture, Some(foreign), b"h2").await.is_err());
    assert_eq!(fixture.span_names().len(), 1);
}

#[tokio::test]
async fn pem_files_that_cannot_be_used_are_named() {
    let authority = Authority::new();
    let good = authority.files(false);
    let empty = authority.write("empty.pem", "");
    let missing = authority.folder.path().join("missing.pem");
    let other_key = authority.write("other.pem", &authority.issue("x").1);
    for (files, part) in [
        (TlsFiles { certificate: missing, ..good.clone() }, "missing.pem: No such file"),
        (TlsFiles { certificate: empty.clone(), ..good.clone() }, "empty.pem: no certificate in PEM"),
        (TlsFiles { key: empty.clone(), ..good.clone() }, "empty.pem: no private key in PEM"),
        (TlsFiles { key: other_key, ..good.clone() }, "cannot be used"),
        (TlsFiles { client_ca: Some(empty), ..good.clone() }, "empty.pem: no certificate in PEM"),
    ] {
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains(part), "{part} is missing in {error}");
    }
    assert!(good.load().is_ok());
}
