use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/project"), Path::new("tracegate.toml"))
}

#[test]
fn a_process_needs_a_program_and_a_readiness_and_gets_defaults_for_the_rest() {
    let config = parse("[deployments.web]\nkind = 'process'\ncommand = ['./web']\nready = { http = '/up' }").unwrap();
    let web = &config.deployments["web"];
    assert_eq!(web.fence_target(), "/up");
    assert!(web.all_labels().contains("http"));
    assert_eq!((web.patience, web.request_timeout), (Duration::from_secs(20), Duration::from_secs(10)));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = parse("[deployments.web]\nkind = 'process'\ncomand = ['./web']").unwrap_err().to_string();
    assert!(error.contains("comand") && error.contains("line 3"), "{error}");
}

#[test]
fn all_inconsistencies_are_reported_at_once() {
    let error = parse("[deployments.web]\nkind = 'process'\nimage = 'x'\nworkers = 0").unwrap_err().to_string();
    for part in ["image does not fit kind process", "`ready`", "`workers`"] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}

#[test]
fn an_undeclared_upstream_is_named() {
    let error = parse("[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'\nenv = { URL = '{upstream.s3}/x' }")
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"s3\""), "{error}");
}

const FUNCTION: &str = "[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'\n";

#[test]
fn an_extension_is_named_by_its_program_unless_it_has_a_name() {
    let text = format!(
        "{FUNCTION}env = {{ E = '{{extension.own.port}}' }}\n[[deployments.f.extensions]]\ncommand = ['opt/collector', 'x']\n\
         [[deployments.f.extensions]]\ncargo = {{ package = 'p', bin = 'b' }}\n\
         [[deployments.f.extensions]]\nname = 'own'\ncommand = ['python3', 'e.py']"
    );
    let config = parse(&text).unwrap();
    let names: Vec<&str> = config.deployments["f"].extensions.iter().map(Extension::name).collect();
    assert_eq!(names, ["collector", "b", "own"]);
}

#[test]
fn extensions_that_cannot_run_are_reported() {
    let extension = "[[deployments.f.extensions]]\n";
    for (text, expected) in [
        (format!("{FUNCTION}{extension}"), "says nothing to run"),
        (format!("{FUNCTION}{extension}command = ['x']\ncargo = {{ package = 'p' }}"), "exclude each other"),
        (format!("{FUNCTION}{extension}command = ['x']\n{extension}command = ['a/x']"), "are named \"x\""),
        (format!("{FUNCTION}{}", format!("{extension}command = ['x']\n").repeat(11)), "at most 10"),
        (format!("{FUNCTION}env = {{ P = '{{extension.x.port}}' }}"), "names no extension"),
        (
            format!(
                "{FUNCTION}env = {{ P = '{{extension.x.port}}' }}\nfunction = {{ environments = 2 }}\n{extension}command = ['x']"
            ),
            "cannot share it",
        ),
        (format!("{FUNCTION}function = {{ environments = 0 }}"), "`function.environments` must be at least 1"),
        (format!("{FUNCTION}function = {{ concurrency = 0 }}"), "`function.concurrency` must be at least 1"),
        (
            format!("[deployments.f]\nkind = 'lambda-container'\nimage = 'f'\n{extension}command = ['x']"),
            "`image` and `dockerfile` exclude them",
        ),
        (format!("{FUNCTION}{extension}command = ['x']").replace("lambda-process", "container"), "are for functions"),
        (
            format!("{FUNCTION}{extension}name = 'a/b'\ncommand = ['x']").replace("lambda-process", "lambda-container"),
            "has no `/`",
        ),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn common_variables_reach_every_deployment_and_its_own_win() {
    let config = parse(
        "[env]\nA = 'all'\nB = 'all'\n[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'\nenv = { B = 'own' }",
    )
    .unwrap();
    let env = &config.deployments["f"].env;
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("all", "own"));
}

#[test]
fn a_gateway_takes_only_the_settings_of_its_kind() {
    let gateway = |settings: &str| {
        parse(&format!("[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'\ngateway = {{ {settings} }}"))
    };
    for (settings, labels) in [
        ("stage = 'v1', resource = '/{proxy+}', binary-media-types = ['*/*'], timeout = '2s'", ["rest-api", "gateway"]),
        ("kind = 'http-api', stage = 'v1', resource = '/files/{path}'", ["http-api", "gateway"]),
        ("kind = 'alb-multi-value'", ["alb", "alb-multi-value"]),
        ("kind = 'function-url', timeout = '1m'", ["function-url", "lambda"]),
    ] {
        let all = gateway(settings).unwrap().deployments["f"].all_labels();
        assert!(labels.iter().all(|label| all.contains(*label)), "{settings}: {all:?}");
    }
    for (settings, problem) in [
        ("kind = 'alb', stage = 'v1'", "`gateway.stage` does not fit gateway kind alb"),
        ("kind = 'function-url', resource = '/a'", "`gateway.resource`"),
        ("kind = 'http-api', binary-media-types = ['*/*']", "`gateway.binary-media-types`"),
        ("resource = 'a'", "begin with `/`"),
        ("kind = 'lattice'", "lattice"),
    ] {
        let error = gateway(settings).unwrap_err().to_string();
        assert!(error.contains(problem), "{settings}: {error}");
    }
    let server = "[deployments.w]\nkind = 'process'\nbinary = 'w'\nready = { http = '/' }\ngateway = { kind = 'alb' }";
    let error = parse(server).unwrap_err().to_string();
    assert!(error.contains("`gateway` is for functions; a process speaks HTTP itself"), "{error}");
}

#[test]
fn what_proves_completeness_of_a_service_is_refused_for_a_function() {
    for setting in ["workers = 2", "fence = '/x'", "quiet = '1s'"] {
        let error = parse(&format!("{FUNCTION}{setting}")).unwrap_err().to_string();
        assert!(error.contains("is not for a function"), "{setting}: {error}");
    }
}

#[test]
fn who_is_signalled_is_a_processs_choice_and_refused_for_all_other_kinds() {
    let web = |setting: &str| parse(&format!("{WEB}{setting}")).map(|config| config.deployments["web"].signal_to);
    assert_eq!(web("").unwrap(), None);
    assert_eq!(web("signal-to = 'leader'").unwrap(), Some(SignalTo::Leader));
    assert_eq!(web("signal-to = 'group'").unwrap(), Some(SignalTo::Group));
    assert!(web("signal-to = 'all'").unwrap_err().to_string().contains("`group` or `leader`"));
    let container = "[deployments.c]\nkind = 'container'\nimage = 'x'\nready = { http = '/' }\nsignal-to = 'leader'";
    for (text, expected) in [
        (container, "`signal-to` is for kind process; an engine signals the first process alone"),
        (&format!("{FUNCTION}signal-to = 'group'"), "`signal-to` is for kind process; an environment is shut down"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_misspelt_placeholder_is_named_and_braces_of_the_programs_own_are_not() {
    let web = |argument: &str| {
        let command = format!("command = ['./web', '{argument}']\nready = {{ http = '/' }}");
        parse(&format!("[deployments.web]\nkind = 'process'\n{command}"))
    };
    let error = web("{prot}").unwrap_err().to_string();
    assert!(error.contains("{prot} stands for nothing, {port} would"), "{error}");
    assert!(web("{PORT}").is_err() && web("{otlp.autority}").is_err());
    for argument in ["{port}", "{\"port\": {port}}", "{path}/{part}", "${HOME}", "{otlp}/x", "{otlp.authority}"] {
        assert!(web(argument).is_ok(), "{argument}: {}", web(argument).unwrap_err());
    }
}

#[test]
fn a_duration_needs_its_unit() {
    let error = parse("[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'\npatience = '10'").unwrap_err();
    assert!(error.to_string().contains("is not a duration"), "{error}");
}

#[test]
fn the_sink_demands_headers_and_what_is_none_is_named_without_its_value() {
    let with = |sink: &str| parse(&format!("[sink]\n{sink}\n{FUNCTION}"));
    let config = with("require-headers = { x-api-key = 'secret' }\ncors-origins = ['*']").unwrap();
    let settings = config.sink.settings().unwrap();
    assert_eq!(settings.required_headers[0].0, "x-api-key");
    assert_eq!(settings.cors_origins, ["*"]);
    assert_eq!(config.sink.retention(), Retention::default());
    let bounded = with("retention-mib = 5\nretention-age = '2m'").unwrap().sink.retention();
    assert_eq!(bounded, Retention { bytes: 5 << 20, age: Some(Duration::from_secs(120)) });
    assert!(with("retention-mib = 0").is_err());
    let error = with("require-headers = { 'x y' = 'secret' }").unwrap_err().to_string();
    assert!(error.contains("\"x y\" is no header name") && !error.contains("secret"), "{error}");
    let error = with("require-headers = { x = \"sec\\u0007ret\" }").unwrap_err().to_string();
    assert!(error.contains("the value of x is no header value"), "{error}");
}

const WEB: &str = "[deployments.web]\nkind = 'process'\ncommand = ['./web']\nready = { http = '/up' }\n";

#[test]
fn advice_is_denied_by_name_and_an_unknown_name_is_refused_with_the_nearest() {
    let deny = |name: &str| parse(&format!("[invariants]\ndeny = ['{name}']\n{WEB}"));
    assert_eq!(deny("unknown-service").unwrap().deployments["web"].invariants.deny, ["unknown-service"]);
    let unknown = deny("deprecated-atributes").unwrap_err().to_string();
    assert!(unknown.contains("did you mean \"deprecated-attributes\"?"), "{unknown}");
    let rule = deny("no-orphan").unwrap_err().to_string();
    assert!(rule.contains("fails a scenario anyway"), "{rule}");
}

#[test]
fn the_skew_is_10_ms_unless_it_is_declared() {
    assert_eq!(parse(WEB).unwrap().invariants.skew, Duration::from_millis(10));
    let wide = parse(&format!("[invariants]\nskew = '2s'\n{WEB}")).unwrap();
    assert_eq!(wide.deployments["web"].invariants.skew, Duration::from_secs(2));
}

#[test]
fn canaries_of_a_deployment_win_over_those_of_all_and_what_cannot_be_planted_is_refused() {
    assert_eq!(parse(WEB).unwrap().deployments["web"].canaries(), Canaries::default());
    let text = format!("[canaries]\nquery = 'token'\n{WEB}canaries = {{ cookie = false }}\n");
    let config = parse(&text).unwrap();
    let web = config.deployments["web"].canaries();
    assert!(!web.cookie && web.query.is_none() && config.canaries.cookie);
    for (text, expected) in [("headers = ['a b']", "no header name"), ("headers = ['Cookie']", "cookie = true")] {
        let error = parse(&format!("[canaries]\n{text}\n{WEB}")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert!(parse(&format!("[canaries]\nquery = 'a&b'\n{WEB}")).unwrap_err().to_string().contains("not a name"));
}
