//! Steps that say what is sent, and send it.

use bytes::Bytes;
use futures::future::{LocalBoxFuture, join_all};

use super::super::{
    registry::{Arguments, Keyword, Need, StepDefinition, StepResult},
    world::{Sent, World},
};
use crate::{
    report::Problem,
    stimulus::{ContextForm, http::Connection},
};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client sends its trace context in W3C headers",
        about: "Only `traceparent` is sent. By default it is sent together with `X-Amzn-Trace-Id`, both with the same ids.",
        example: "Given the client sends its trace context in W3C headers",
        need: Need::Shared,
        run: |world, _| form(world, ContextForm::W3c),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client sends its trace context in the X-Ray header",
        about: "Only `X-Amzn-Trace-Id` is sent, with Root, Parent and Sampled.",
        example: "Given the client sends its trace context in the X-Ray header",
        need: Need::Shared,
        run: |world, _| form(world, ContextForm::Xray),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client sends only the root of its trace in the X-Ray header",
        about: "`X-Amzn-Trace-Id: Root=…`, as API Gateway adds it: a trace to join, and no span to hang on.",
        example: "Given the client sends only the root of its trace in the X-Ray header",
        need: Need::Shared,
        run: |world, _| form(world, ContextForm::XrayRoot),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client sends no trace context",
        about: "No trace header is sent: the service has to start a trace. (A gateway adds a root of its own.)",
        example: "Given the client sends no trace context",
        need: Need::Alone,
        run: |world, _| form(world, ContextForm::Absent),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client does not sample its trace",
        about: "The context says that the caller does not record its trace: `00` in traceparent, `Sampled=0` for X-Ray.",
        example: "Given the client does not sample its trace",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                world.scene()?.draft.sampled = false;
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client sends the header {text} with the value {text}",
        about: "A header of every request that follows. One with a trace context stands behind “the client sends no trace context”.",
        example: "Given the client sends the header \"Accept-Language\" with the value \"en\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let header = (arguments.text(0).to_owned(), arguments.text(1).to_owned());
                let draft = &mut world.scene()?.draft;
                let is_context = |name: &&&str| header.0.eq_ignore_ascii_case(name);
                if draft.form != ContextForm::Absent
                    && let Some(name) = ["traceparent", "x-amzn-trace-id"].iter().find(is_context)
                {
                    return Err(Problem::errored(format!(
                        "{name} would go out twice, as the client sends its own: say `Given the client sends no trace context` before"
                    )));
                }
                draft.headers.push(header);
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client sends the secret {text} in the header {text}",
        about: "As above, and the value is remembered as a secret; see “no secret is found in the telemetry”.",
        example: "Given the client sends the secret \"canary-5f2c\" in the header \"Authorization\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let draft = &mut world.scene()?.draft;
                draft.secrets.push(arguments.text(0).to_owned());
                draft.headers.push((arguments.text(1).to_owned(), arguments.text(0).to_owned()));
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "{text} is a secret",
        about: "Remembers a value that a later step sends (in a query, in a body) as a secret.",
        example: "Given \"canary-5f2c\" is a secret",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                world.scene()?.draft.secrets.push(arguments.text(0).to_owned());
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the caller's client context is",
        about: "What an app says of itself when it invokes the function through an AWS SDK, a JSON object of at most 3583 \
                bytes in Base64; the runtime reads it as `Lambda-Runtime-Client-Context`. \
                Runtimes may want all of `client` or none of it.",
        example: "Given the caller's client context is\n\"\"\"\n{\"custom\": {\"tenant\": \"a\"}}\n\"\"\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let context = client_context(arguments.doc_string()?)?;
                let scene = world.scene()?;
                scene.only_a_function_hears("a client context")?;
                scene.draft.client.identity.client_context = Some(context);
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the caller has the Cognito identity {text} of the pool {text}",
        about: "How Amazon Cognito knows the caller; the runtime reads it as `Lambda-Runtime-Cognito-Identity`.",
        example: "Given the caller has the Cognito identity \"us-west-2:1f9c\" of the pool \"us-west-2:e5b2\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let scene = world.scene()?;
                scene.only_a_function_hears("a Cognito identity")?;
                let identity = serde_json::json!({
                    "cognitoIdentityId": arguments.text(0),
                    "cognitoIdentityPoolId": arguments.text(1),
                });
                scene.draft.client.identity.cognito = Some(identity.to_string());
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the client keeps its connection open",
        about: "Requests that follow one another go over one connection for as long as the service keeps it too, as they come from a \
                load balancer; each of several clients has one of its own. Otherwise each request has a new one, so that a context \
                that is kept with a connection goes unnoticed. One connection comes to one worker process: who wants to see all of \
                them does not say this. To a function there is no connection, and it says nothing.",
        example: "Given the client keeps its connection open",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                world.scene()?.draft.client.connection = Some(Connection::default());
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "a client sends {method} {target}",
        about: "An HTTP request to a process or a container; to a function the event that its gateway makes of it.",
        example: "When a client sends GET /files/?directory_path=a",
        need: Need::Shared,
        run: |world, arguments| send(world, arguments, Bytes::new()),
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "a client sends {method} {target} with the body",
        about: "The same with a body. Set its content type with a header step.",
        example: "When a client sends POST /files/a.txt?content=x with the body\n\"\"\"\n{\"key\": \"value\"}\n\"\"\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async move {
                let body = arguments.doc_string()?.trim_end_matches('\n').to_owned();
                send(world, arguments, body.into()).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "a client sends {method} {target} {int} times",
        about: "One after the other, each with a trace of its own.",
        example: "When a client sends GET /files/ 5 times",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let count: usize = arguments.number(2)?;
                for _ in 0..count {
                    send(world, arguments, Bytes::new()).await?;
                }
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "{int} clients send {method} {target} at the same time",
        about: "Each with a trace of its own. Steps that speak of the request speak of the last one, steps that speak of \
                each request of all of them. A function takes one event at a time unless `function.environments` or \
                `function.concurrency` says otherwise.",
        example: "When 16 clients send GET /files/ at the same time",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let count: usize = arguments.number(0)?;
                let scene = world.scene()?;
                let requests =
                    (0..count).map(|_| scene.draft.request(arguments.text(1), arguments.text(2), Bytes::new()));
                let sending = requests
                    .map(|request| scene.instance.send(request, scene.draft.one_of_several(), &scene.draft.secrets))
                    .collect::<Vec<_>>();
                for delivery in join_all(sending).await {
                    scene.sent.push(Sent::new(delivery?));
                }
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "API Gateway delivers the event {text}",
        about: "A literal event, from a JSON file beside the feature file or in a folder above it. Its trace id is what it \
                is, so the scenario has a function of its own.",
        example: "When API Gateway delivers the event \"documented-event.json\"",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let scene = world.scene()?;
                let event = scene.read_event(arguments.text(0))?;
                let identity = scene.draft.client.identity.clone();
                let delivery = scene.instance.deliver(event, identity, &scene.draft.secrets).await?;
                scene.sent.push(Sent::new(delivery));
                Ok(())
            })
        },
    },
];

/// Bytes that a client context may have in Base64 (`X-Amz-Client-Context` of Lambda's Invoke API).
const LARGEST_CLIENT_CONTEXT: usize = 3583;

/// A client context on one line, as it travels in a header.
fn client_context(text: &str) -> Result<String, Problem> {
    let wrong = |what: String| Problem::errored(format!("the client context {what}"));
    let context: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| wrong(format!("is no JSON object: {error}")))?;
    let context = serde_json::Value::Object(context).to_string();
    let encoded = base64::encoded_len(context.len(), true).unwrap_or(usize::MAX);
    if encoded > LARGEST_CLIENT_CONTEXT {
        return Err(wrong(format!("has {encoded} bytes in Base64; Lambda takes {LARGEST_CLIENT_CONTEXT} at most")));
    }
    Ok(context)
}

fn form(world: &mut World, form: ContextForm) -> LocalBoxFuture<'_, StepResult> {
    Box::pin(async move {
        world.scene()?.draft.form = form;
        Ok(())
    })
}

fn send<'a>(world: &'a mut World, arguments: &'a Arguments, body: Bytes) -> LocalBoxFuture<'a, StepResult> {
    Box::pin(async move {
        let scene = world.scene()?;
        let request = scene.draft.request(arguments.text(0), arguments.text(1), body);
        let delivery = scene.instance.send(request, scene.draft.client.clone(), &scene.draft.secrets).await?;
        scene.sent.push(Sent::new(delivery));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_context_is_an_object_on_one_line_and_no_larger_than_lambda_takes_it() {
        assert_eq!(client_context("{\n  \"client\": {}\n}").unwrap(), r#"{"client":{}}"#);
        for (text, expected) in [
            ("[]".to_owned(), "is no JSON object"),
            ("{".to_owned(), "is no JSON object"),
            (format!("{{\"custom\": \"{}\"}}", "x".repeat(2674)), "Lambda takes 3583 at most"),
        ] {
            assert!(client_context(&text).unwrap_err().message.contains(expected), "{expected}");
        }
        assert!(client_context(&format!("{{\"custom\": \"{}\"}}", "x".repeat(2671))).is_ok());
    }
}
