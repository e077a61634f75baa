//! The environment variables that Lambda sets ("Defined runtime environment variables" in the Lambda Developer Guide),
//! as far as they are not credentials or about the X-Ray daemon, which does not run here.

use std::collections::BTreeMap;

use crate::config::Function;

/// Where Lambda has a function's code, and images made like Lambda's.
pub(super) const TASK_ROOT: &str = "/var/task";

/// Adds what Lambda sets to `env`; what the deployment was told itself stays. `task_root` is where the function's code is:
/// instrumentations find the handler's module there.
pub(super) fn set(
    env: &mut BTreeMap<String, String>,
    function: &Function,
    runtime_api: &str,
    log_stream: &str,
    task_root: &str,
) {
    for (name, value) in [
        ("AWS_DEFAULT_REGION", function.region.as_str()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &function.memory.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", &function.name),
        ("AWS_LAMBDA_FUNCTION_VERSION", &function.version),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", function.initialization_type()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", &format!("/aws/lambda/{}", function.name)),
        ("AWS_LAMBDA_LOG_STREAM_NAME", log_stream),
        ("AWS_LAMBDA_RUNTIME_API", runtime_api),
        ("AWS_REGION", &function.region),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
        ("LAMBDA_TASK_ROOT", task_root),
        ("TZ", ":UTC"),
        ("_HANDLER", &function.handler),
    ] {
        env.entry(name.into()).or_insert_with(|| value.into());
    }
    if let Some(concurrency) = function.concurrency {
        env.entry("AWS_LAMBDA_MAX_CONCURRENCY".into()).or_insert_with(|| concurrency.to_string());
    }
}

/// The same for an external extension, which does not get what is about the runtime and its log ("Environment
/// variables" in the Extensions API's reference).
pub(super) fn set_for_extension(
    env: &mut BTreeMap<String, String>,
    function: &Function,
    runtime_api: &str,
    log_stream: &str,
) {
    set(env, function, runtime_api, log_stream, TASK_ROOT);
    for name in [
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
    ] {
        env.remove(name);
    }
}

/// `2023/02/03/[$LATEST]` and 32 random digits: one for each execution environment.
pub(super) fn log_stream(function: &Function) -> String {
    let day = jiff::Timestamp::now().strftime("%Y/%m/%d").to_string();
    format!("{day}/[{}]{:032x}", function.version, rand::random::<u128>())
}

/// `arn:aws:lambda:{region}:{account}:function:{name}`, with the version as a qualifier unless it is `$LATEST`.
pub(super) fn arn(function: &Function) -> String {
    let arn = format!("arn:aws:lambda:{}:{}:function:{}", function.region, function.account, function.name);
    if function.version == "$LATEST" { arn } else { format!("{arn}:{}", function.version) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_deployment_was_told_itself_stays() {
        let mut env = BTreeMap::from([("AWS_REGION".to_owned(), "eu-central-1".to_owned())]);
        let function = Function::default();
        set(&mut env, &function, "127.0.0.1:9001", &log_stream(&function), TASK_ROOT);
        assert_eq!(env["AWS_REGION"], "eu-central-1");
        assert_eq!(env["AWS_DEFAULT_REGION"], "us-west-2");
        assert_eq!(env["AWS_LAMBDA_RUNTIME_API"], "127.0.0.1:9001");
        assert!(env["AWS_LAMBDA_LOG_STREAM_NAME"].contains("/[$LATEST]"));
    }

    #[test]
    fn a_runtime_on_a_managed_instance_is_told_how_many_invocations_it_has_at_a_time() {
        let told = |concurrency| {
            let mut env = BTreeMap::new();
            set(&mut env, &Function { concurrency, ..Function::default() }, "127.0.0.1:9001", "stream", TASK_ROOT);
            (env.get("AWS_LAMBDA_MAX_CONCURRENCY").cloned(), env["AWS_LAMBDA_INITIALIZATION_TYPE"].clone())
        };
        assert_eq!(told(None), (None, "on-demand".into()));
        assert_eq!(told(Some(8)), (Some("8".into()), "lambda-managed-instances".into()));
    }

    #[test]
    fn an_extension_is_not_told_the_handler() {
        let mut env = BTreeMap::new();
        set_for_extension(&mut env, &Function::default(), "127.0.0.1:9001", "stream");
        assert!(!env.contains_key("_HANDLER") && !env.contains_key("AWS_LAMBDA_LOG_STREAM_NAME"));
        assert_eq!(env["AWS_LAMBDA_FUNCTION_NAME"], "function");
    }

    #[test]
    fn a_published_version_qualifies_the_arn() {
        let function = Function { version: "7".into(), ..Function::default() };
        assert_eq!(arn(&function), "arn:aws:lambda:us-west-2:123456789012:function:function:7");
        assert_eq!(arn(&Function::default()), "arn:aws:lambda:us-west-2:123456789012:function:function");
    }
}
