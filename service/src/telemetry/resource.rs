//! Who is speaking: the resource that stands on every signal of this process.

use opentelemetry::KeyValue;
use opentelemetry_sdk::{
    Resource,
    resource::{ResourceDetector, TelemetryResourceDetector},
};
use opentelemetry_semantic_conventions::resource::{
    CLOUD_PLATFORM, CLOUD_PROVIDER, CLOUD_REGION, DEPLOYMENT_ENVIRONMENT_NAME, FAAS_INSTANCE, FAAS_MAX_MEMORY,
    FAAS_NAME, FAAS_VERSION, PROCESS_PID, SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION,
};
use uuid::Uuid;

use crate::settings::Settings;

/// The resource of this process: what the SDK and this service know, then
/// `OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME`; a later one wins.
///
/// `service.instance.id` is a new UUID per call and `process.pid` that of the calling process, so
/// worker processes never share a resource.
pub fn of_this_process(settings: &Settings) -> Resource {
    let mut attributes = vec![
        KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")),
        KeyValue::new(SERVICE_INSTANCE_ID, Uuid::new_v4().to_string()),
        KeyValue::new(PROCESS_PID, i64::from(std::process::id())),
        KeyValue::new(DEPLOYMENT_ENVIRONMENT_NAME, settings.environment.clone()),
    ];
    if let Some(function) = &settings.lambda {
        attributes.extend([
            KeyValue::new(CLOUD_PROVIDER, "aws"),
            KeyValue::new(CLOUD_PLATFORM, "aws_lambda"),
            KeyValue::new(FAAS_NAME, function.name.clone()),
            KeyValue::new(FAAS_VERSION, function.version.clone()),
            KeyValue::new(FAAS_MAX_MEMORY, function.memory_bytes),
        ]);
        attributes.extend(function.region.clone().map(|region| KeyValue::new(CLOUD_REGION, region)));
        attributes.extend(function.log_stream.clone().map(|stream| KeyValue::new(FAAS_INSTANCE, stream)));
    }
    attributes.extend(
        settings.telemetry.resource_attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
    );
    attributes.push(KeyValue::new(SERVICE_NAME, settings.telemetry.service_name.clone()));
    let sdk = TelemetryResourceDetector.detect();
    Resource::builder_empty()
        .with_attributes(sdk.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .with_attributes(attributes)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;
    use opentelemetry::Key;

    fn resource(pairs: &[(&str, &str)]) -> Resource {
        of_this_process(&Settings::from_environment(&Environment::of(pairs)).unwrap())
    }

    fn value(resource: &Resource, key: &'static str) -> String {
        resource.get(&Key::from_static_str(key)).map(|value| value.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_environment_overrides_what_the_service_knows() {
        let resource = resource(&[
            ("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,team=files,service.name=lost"),
            ("OTEL_SERVICE_NAME", "mine"),
            ("ENVIRONMENT", "production"),
        ]);
        assert_eq!(value(&resource, "service.version"), "9");
        assert_eq!(value(&resource, "team"), "files");
        assert_eq!(value(&resource, "service.name"), "mine");
        assert_eq!(value(&resource, "deployment.environment.name"), "production");
        assert_eq!(value(&resource, "telemetry.sdk.language"), "rust");
    }

    #[test]
    fn two_processes_would_never_share_an_instance_id() {
        let id = || value(&resource(&[]), "service.instance.id");
        assert_ne!(id(), id());
        assert_eq!(value(&resource(&[]), "process.pid"), std::process::id().to_string());
    }

    #[test]
    fn a_function_is_named_with_its_cloud() {
        let resource = resource(&[
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
            ("AWS_LAMBDA_FUNCTION_NAME", "files"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "7"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_REGION", "us-west-2"),
        ]);
        assert_eq!(value(&resource, "faas.name"), "files");
        assert_eq!(value(&resource, "faas.version"), "7");
        assert_eq!(value(&resource, "faas.max_memory"), "134217728");
        assert_eq!(value(&resource, "cloud.provider"), "aws");
        assert_eq!(value(&resource, "cloud.region"), "us-west-2");
    }
}
