//! The API as a Lambda function behind API Gateway.
//!
//! One span per invocation, with the application's span under it, as X-Ray shows a function. All
//! telemetry of an invocation is out before the runtime asks for the next one, because the process
//! may be frozen from then on.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::{Duration, SystemTime},
};

use axum::{Router, body::Body, extract::Request, http::Uri};
use http_body_util::BodyExt;
use lambda_http::{
    RequestExt,
    request::RequestContext,
    tower::{Layer, Service, ServiceExt, service_fn},
};
use lambda_runtime::LambdaInvocation;
use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};
use opentelemetry_semantic_conventions::attribute::{
    CLOUD_ACCOUNT_ID, CLOUD_PROVIDER, CLOUD_REGION, CLOUD_RESOURCE_ID, ERROR_TYPE, FAAS_COLDSTART, FAAS_INVOCATION_ID,
    FAAS_NAME, FAAS_TRIGGER, FAAS_VERSION, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use self::event::GatewayEvent;
use crate::{
    http_span::{Answered, GatewayClient},
    settings::LambdaFunction,
    telemetry::{Telemetry, logs::AwsRequestId, propagators::RuntimeTraceHeader},
};

mod event;

/// Kept for what comes after the flush: the runtime must ask for the next event before the
/// invocation's deadline.
const MARGIN: Duration = Duration::from_millis(200);

/// Characters that a gateway may leave in a path and that no URI has.
const NOT_IN_A_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

/// Answers invocations until `stop` is ready.
///
/// # Errors
/// When the Runtime API cannot be reached or does not answer as it should.
pub async fn run(
    app: Router,
    telemetry: &Telemetry,
    function: &LambdaFunction,
    stop: impl Future<Output = &'static str>,
) -> Result<(), lambda_http::Error> {
    let handler = service_fn(move |request: lambda_http::Request| {
        let app = app.clone();
        async move { answer(app, request).await }
    });
    let runtime = lambda_http::runtime(handler)
        .layer(InvocationLayer { telemetry: telemetry.clone(), function: function.clone() });
    tokio::select! {
        result = runtime.run() => result,
        _ = stop => Ok(()),
    }
}

/// Hands a gateway's request to the API.
async fn answer(
    app: Router,
    request: lambda_http::Request,
) -> Result<lambda_http::Response<lambda_http::Body>, lambda_http::Error> {
    let (parts, body) = app.oneshot(to_http(request)).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    // Text goes as it is; base64 would need a gateway that knows the media type as binary.
    let body = match std::str::from_utf8(&body) {
        Ok(text) => lambda_http::Body::from(text),
        Err(_) => lambda_http::Body::from(body.to_vec()),
    };
    Ok(lambda_http::Response::from_parts(parts, body))
}

/// The gateway's request as the server would have received it.
///
/// The path is the event's own: `lambda_http` puts the stage before it and resolves `..`.
fn to_http(request: lambda_http::Request) -> Request {
    let path = utf8_percent_encode(request.raw_http_path(), NOT_IN_A_PATH).to_string();
    let client = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV1(context)) => context.identity.source_ip.clone(),
        Some(RequestContext::ApiGatewayV2(context)) => context.http.source_ip.clone(),
        _ => None,
    };
    let (mut parts, body) = request.into_parts();
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    if let Ok(uri) = format!("{path}{query}").parse::<Uri>() {
        parts.uri = uri;
    }
    if let Some(client) = client {
        parts.extensions.insert(GatewayClient(client));
    }
    Request::from_parts(parts, Body::from(body.to_vec()))
}

#[derive(Clone)]
struct InvocationLayer {
    telemetry: Telemetry,
    function: LambdaFunction,
}

impl<S> Layer<S> for InvocationLayer {
    type Service = Invocations<S>;

    fn layer(&self, inner: S) -> Invocations<S> {
        Invocations {
            inner,
            telemetry: self.telemetry.clone(),
            function: self.function.clone(),
            cold: Arc::new(AtomicBool::new(true)),
        }
    }
}

/// Runs each invocation, the posting of its answer included, in a span, and flushes after it.
struct Invocations<S> {
    inner: S,
    telemetry: Telemetry,
    function: LambdaFunction,
    cold: Arc<AtomicBool>,
}

impl<S> Service<LambdaInvocation> for Invocations<S>
where
    S: Service<LambdaInvocation, Response = (), Error = lambda_http::Error>,
    S::Future: 'static,
{
    type Response = ();
    type Error = lambda_http::Error;
    type Future = Pin<Box<dyn Future<Output = Result<(), lambda_http::Error>>>>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, invocation: LambdaInvocation) -> Self::Future {
        let telemetry = self.telemetry.clone();
        let deadline = invocation.context.deadline();
        let answered = Answered::default();
        let cold = self.cold.swap(false, Ordering::AcqRel);
        let context = self.start(&invocation, cold, answered.clone());
        let running = {
            let _in_span = context.clone().attach();
            self.inner.call(invocation)
        };
        Box::pin(async move {
            let result = running.with_context(context.clone()).await;
            end(&context, &answered, result.as_ref().err());
            drop(context);
            telemetry.flush(time_left(deadline, SystemTime::now())).await;
            result
        })
    }
}

impl<S> Invocations<S> {
    /// Starts the invocation's span: the parent is what the propagators find in the runtime's
    /// trace header and in the event's headers.
    fn start(&self, invocation: &LambdaInvocation, cold: bool, answered: Answered) -> Context {
        let event = GatewayEvent::of(&invocation.body);
        let runtime = &invocation.context;
        let mut base = Context::new().with_value(answered).with_value(AwsRequestId(runtime.request_id.clone()));
        if let Some(header) = &runtime.xray_trace_id {
            base = base.with_value(RuntimeTraceHeader(header.clone()));
        }
        let parent = self.telemetry.extract(&base, &event.headers);
        let mut attributes = vec![
            KeyValue::new(FAAS_TRIGGER, "http"),
            KeyValue::new(FAAS_INVOCATION_ID, runtime.request_id.clone()),
            KeyValue::new(FAAS_COLDSTART, cold),
            KeyValue::new(FAAS_NAME, self.function.name.clone()),
            KeyValue::new(FAAS_VERSION, self.function.version.clone()),
            KeyValue::new(CLOUD_PROVIDER, "aws"),
            KeyValue::new(CLOUD_RESOURCE_ID, runtime.invoked_function_arn.clone()),
        ];
        // arn:aws:lambda:<region>:<account>:function:<name>
        let mut arn = runtime.invoked_function_arn.split(':').skip(3);
        let region = arn.next().map(str::to_owned).or_else(|| self.function.region.clone());
        attributes.extend(region.map(|region| KeyValue::new(CLOUD_REGION, region)));
        attributes.extend(arn.next().map(|account| KeyValue::new(CLOUD_ACCOUNT_ID, account.to_owned())));
        attributes.extend(event.method.clone().map(|method| KeyValue::new(HTTP_REQUEST_METHOD, method)));
        attributes.extend(event.route.clone().map(|route| KeyValue::new(HTTP_ROUTE, route)));
        let name = event.span_name().unwrap_or_else(|| self.function.name.clone());
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        self.telemetry.start_span(span, &parent)
    }
}

/// How long a flush may take; `None` for no limit of the invocation's.
///
/// A deadline in the past is none: Lambda would have ended the process, but emulators are known to
/// send constants.
fn time_left(deadline: SystemTime, now: SystemTime) -> Option<Duration> {
    let left = deadline.duration_since(now).ok()?;
    Some(left.saturating_sub(MARGIN))
}

/// Ends the invocation's span: an error when the function failed and when the API answered 5xx.
fn end(context: &Context, answered: &Answered, error: Option<&lambda_http::Error>) {
    let span = context.span();
    match (answered.status(), error) {
        (Some(status), None) => {
            span.set_attribute(KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status.as_u16())));
            if status.is_server_error() {
                span.set_attribute(KeyValue::new(ERROR_TYPE, status.as_str().to_owned()));
                span.set_status(Status::error(""));
            }
        }
        (_, Some(error)) => {
            span.set_attribute(KeyValue::new(ERROR_TYPE, "Runtime"));
            span.set_status(Status::error(error.to_string()));
        }
        (None, None) => {
            span.set_attribute(KeyValue::new(ERROR_TYPE, "Invocation"));
            span.set_status(Status::error("the event was not answered by the API"));
        }
    }
    span.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_ends_before_the_deadline() {
        let now = SystemTime::now();
        let left = |milliseconds| time_left(now + Duration::from_millis(milliseconds), now);
        assert_eq!(left(1200), Some(Duration::from_secs(1)));
        assert_eq!(left(100), Some(Duration::ZERO));
    }

    #[test]
    fn a_deadline_in_the_past_is_none() {
        let now = SystemTime::now();
        assert_eq!(time_left(SystemTime::UNIX_EPOCH, now), None);
    }
}
