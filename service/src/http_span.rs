//! The SERVER span and the metrics of each HTTP request.
//!
//! Names follow the stable semantic conventions for HTTP servers, version 1.23 and later.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Instant,
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, Method, StatusCode, Version, header},
    middleware::Next,
    response::Response,
};
use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    metrics::{Histogram, Meter, UpDownCounter},
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};
use opentelemetry_semantic_conventions::{
    attribute::{
        CLIENT_ADDRESS, ERROR_TYPE, EXCEPTION_MESSAGE, EXCEPTION_TYPE, HTTP_REQUEST_METHOD,
        HTTP_REQUEST_METHOD_ORIGINAL, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, NETWORK_PROTOCOL_VERSION, SERVER_ADDRESS,
        SERVER_PORT, URL_PATH, URL_QUERY, URL_SCHEME, USER_AGENT_ORIGINAL,
    },
    metric::{HTTP_SERVER_ACTIVE_REQUESTS, HTTP_SERVER_REQUEST_DURATION},
};

use crate::{AppState, errors::Failure, redaction, routes::Route};

/// Address of the caller as a gateway saw it; travels with the request.
#[derive(Clone, Debug)]
pub struct GatewayClient(pub String);

/// Marks a context as that of an invocation, and tells the invocation how the request in it was
/// answered: the status, 0 until then.
///
/// Under such a context the request's span is a child of the invocation's; else its parent is what
/// the propagators find in the headers.
#[derive(Clone, Debug, Default)]
pub struct Answered(Arc<AtomicU16>);

impl Answered {
    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.0.load(Ordering::Acquire)).ok()
    }
}

/// Instruments of the HTTP server.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
}

impl ServerMetrics {
    /// Makes the instruments.
    pub fn new(meter: &Meter) -> Self {
        Self {
            duration: meter
                .f64_histogram(HTTP_SERVER_REQUEST_DURATION)
                .with_unit("s")
                .with_description("Duration of HTTP server requests.")
                // The bounds that the conventions advise for this metric.
                .with_boundaries(vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0])
                .build(),
            active: meter
                .i64_up_down_counter(HTTP_SERVER_ACTIVE_REQUESTS)
                .with_unit("{request}")
                .with_description("Number of active HTTP server requests.")
                .build(),
        }
    }
}

/// Runs the request in a SERVER span named `{method} {route}`, or `{method}` without a route.
///
/// The status is ERROR for 5xx only: a 4xx is the caller's mistake.
pub async fn trace(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let exchange = Exchange::start(&app, &request);
    let response = next.run(request).with_context(exchange.context.clone()).await;
    exchange.finish(&response);
    response
}

/// `http` or `https`, as the caller sees it.
pub fn scheme(request: &Request) -> &'static str {
    let forwarded = request
        .headers()
        .get("x-forwarded-proto")
        .and_then(|scheme| scheme.to_str().ok())
        .and_then(|schemes| schemes.split(',').next())
        .map(str::trim);
    match forwarded.or(request.uri().scheme_str()) {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    }
}

/// The host that the caller asked for, without the port; and the port, if there is one.
pub fn host_and_port(request: &Request) -> Option<(String, Option<u16>)> {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| request.uri().authority().map(|authority| authority.as_str()))?;
    let authority = host.parse::<http::uri::Authority>().ok()?;
    Some((authority.host().to_owned(), authority.port_u16()))
}

/// The method if it is one that the conventions list, else `_OTHER`: anybody can send any word.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "CONNECT" => "CONNECT",
        "DELETE" => "DELETE",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        "POST" => "POST",
        "PUT" => "PUT",
        "TRACE" => "TRACE",
        _ => "_OTHER",
    }
}

fn protocol_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn client_address(request: &Request) -> Option<String> {
    let forwarded = request
        .headers()
        .get("x-forwarded-for")
        .and_then(|addresses| addresses.to_str().ok())
        .and_then(|addresses| addresses.split(',').next())
        .map(|address| address.trim().to_owned())
        .filter(|address| !address.is_empty());
    let extensions = request.extensions();
    forwarded
        .or_else(|| extensions.get::<GatewayClient>().map(|client| client.0.clone()))
        .or_else(|| extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_string()))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// One request under way. Dropped before it is finished (the caller hung up), it still ends its
/// span and counts, so that the metrics' counts equal the requests.
struct Exchange {
    context: Context,
    metrics: ServerMetrics,
    method: &'static str,
    active: [KeyValue; 2],
    measured: Vec<KeyValue>,
    start: Instant,
    finished: bool,
}

impl Exchange {
    fn start(app: &AppState, request: &Request) -> Self {
        let method = known_method(request.method());
        let scheme = scheme(request);
        let version = protocol_version(request.version());
        let active = [KeyValue::new(HTTP_REQUEST_METHOD, method), KeyValue::new(URL_SCHEME, scheme)];
        let measured =
            active.iter().cloned().chain([KeyValue::new(NETWORK_PROTOCOL_VERSION, version)]).collect::<Vec<_>>();
        let mut attributes = measured.clone();
        attributes.push(KeyValue::new(URL_PATH, request.uri().path().to_owned()));
        if method == "_OTHER" {
            attributes.push(KeyValue::new(HTTP_REQUEST_METHOD_ORIGINAL, request.method().as_str().to_owned()));
        }
        if let Some(query) = request.uri().query() {
            attributes.push(KeyValue::new(URL_QUERY, redaction::query(query)));
        }
        if let Some((host, port)) = host_and_port(request) {
            let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
            attributes.push(KeyValue::new(SERVER_ADDRESS, host));
            attributes.push(KeyValue::new(SERVER_PORT, i64::from(port)));
        }
        attributes.extend(client_address(request).map(|address| KeyValue::new(CLIENT_ADDRESS, address)));
        attributes.extend(
            text(request.headers(), header::USER_AGENT)
                .map(|agent| KeyValue::new(USER_AGENT_ORIGINAL, redaction::text(&agent).into_owned())),
        );
        let span =
            SpanBuilder::from_name(span_name(method, None)).with_kind(SpanKind::Server).with_attributes(attributes);
        let current = Context::current();
        let parent = if current.get::<Answered>().is_some() {
            current
        } else {
            app.telemetry.extract(&current, request.headers())
        };
        app.metrics.active.add(1, &active);
        Self {
            context: app.telemetry.start_span(span, &parent),
            metrics: app.metrics.clone(),
            method,
            active,
            measured,
            start: Instant::now(),
            finished: false,
        }
    }

    fn finish(mut self, response: &Response) {
        let span = self.context.span();
        let status = response.status();
        let code = KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16()));
        span.set_attribute(code.clone());
        self.measured.push(code);
        if let Some(Route(route)) = response.extensions().get() {
            let route_attribute = KeyValue::new(HTTP_ROUTE, route.clone());
            span.update_name(span_name(self.method, Some(route)));
            span.set_attribute(route_attribute.clone());
            self.measured.push(route_attribute);
        }
        if status.is_server_error() {
            let failure = response.extensions().get::<Failure>();
            let kind = failure.map_or_else(|| status.as_str().to_owned(), |failure| failure.kind.into());
            let error_type = KeyValue::new(ERROR_TYPE, kind);
            span.set_attribute(error_type.clone());
            self.measured.push(error_type);
            if let Some(failure) = failure {
                span.add_event(
                    "exception",
                    vec![
                        KeyValue::new(EXCEPTION_TYPE, failure.kind),
                        KeyValue::new(EXCEPTION_MESSAGE, failure.message.clone()),
                    ],
                );
            }
            let message = failure.map(|failure| failure.message.clone()).unwrap_or_default();
            span.set_status(Status::error(message));
        }
        if let Some(answered) = self.context.get::<Answered>() {
            answered.0.store(status.as_u16(), Ordering::Release);
        }
        self.finished = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.finished {
            let cancelled = KeyValue::new(ERROR_TYPE, "cancelled");
            self.context.span().set_attribute(cancelled.clone());
            self.measured.push(cancelled);
        }
        // Measured inside the span, so that an exemplar names this span and not the caller's.
        let _in_span = self.context.clone().attach();
        self.metrics.duration.record(self.start.elapsed().as_secs_f64(), &self.measured);
        self.metrics.active.add(-1, &self.active);
        self.context.span().end();
    }
}

fn span_name(method: &'static str, route: Option<&str>) -> String {
    let method = if method == "_OTHER" { "HTTP" } else { method };
    route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"))
}
