//! Steps about what the client read.

use super::super::registry::{Keyword, Need, StepDefinition};
use crate::{
    expectation::TextMatcher,
    report::Problem,
    stimulus::{Delivery, Invocation},
};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the response status is {int}",
        about: "The status that an HTTP client reads; behind a gateway the one that the gateway makes of the response. Of every request of \
                the `When` steps right above.",
        example: "Then the response status is 200",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let expected: u16 = arguments.number(0)?;
                let scene = world.scene()?;
                for sent in &scene.sent[scene.asked..] {
                    if sent.delivery.response.status != expected {
                        return Err(differs(&format!("status {expected}"), &sent.delivery));
                    }
                }
                scene.last().map(|_| ())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the response header {text} is {value}",
        about: "The header's value as text, with its quotes or without, or `/…/`, or `*` for any value. Of several headers of the name one \
                has it.",
        example: "Then the response header \"content-type\" is application/json",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let delivery = &world.scene()?.last()?.delivery;
                let response = &delivery.response;
                let expected = arguments.text(1);
                let matcher = TextMatcher::parse(expected).map_err(|error| Problem::from_error(&error))?;
                let fits = |value: &str| expected == "*" || value == expected || matcher.matches(value);
                match response.all(arguments.text(0)).any(fits) {
                    true => Ok(()),
                    false => Err(differs(&format!("header {} = {}", arguments.text(0), expected), delivery)),
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the response has no header {text}",
        about: "The header is absent.",
        example: "Then the response has no header \"set-cookie\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let delivery = &world.scene()?.last()?.delivery;
                let response = &delivery.response;
                match response.header(arguments.text(0)) {
                    None => Ok(()),
                    Some(_) => Err(differs(&format!("no header {}", arguments.text(0)), delivery)),
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the response body is {text}",
        about: "The whole body as text.",
        example: "Then the response body is \"hello\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let delivery = &world.scene()?.last()?.delivery;
                let response = &delivery.response;
                if response.body == arguments.text(0).as_bytes() {
                    Ok(())
                } else {
                    Err(differs(&format!("the body {:?}", arguments.text(0)), delivery))
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the response body contains {text}",
        about: "Part of the body.",
        example: "Then the response body contains \"openapi\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let delivery = &world.scene()?.last()?.delivery;
                let response = &delivery.response;
                if String::from_utf8_lossy(&response.body).contains(arguments.text(0)) {
                    Ok(())
                } else {
                    Err(differs(&format!("a body that contains {:?}", arguments.text(0)), delivery))
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the response body is the JSON",
        about: "The same JSON value; the order of keys and white space do not count.",
        example: "Then the response body is the JSON\n\"\"\"\n{\"path\": \"a.txt\"}\n\"\"\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let expected: serde_json::Value = serde_json::from_str(arguments.doc_string()?)
                    .map_err(|error| Problem::errored(format!("the doc string is not JSON: {error}")))?;
                let delivery = &world.scene()?.last()?.delivery;
                let response = &delivery.response;
                let found: Option<serde_json::Value> = serde_json::from_slice(&response.body).ok();
                if found.as_ref() == Some(&expected) {
                    Ok(())
                } else {
                    Err(differs(&format!("the JSON {expected}"), delivery))
                }
            })
        },
    },
];

fn differs(expected: &str, delivery: &Delivery) -> Problem {
    let response = &delivery.response;
    let headers: Vec<String> = response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let body: String = String::from_utf8_lossy(&response.body).chars().take(400).collect();
    let trouble = delivery.invocation.as_ref().and_then(Invocation::trouble);
    let trouble = trouble.map_or_else(String::new, |trouble| format!("\n{trouble}"));
    Problem::failed(format!(
        "expected   {expected}\nreceived   status {}\nheaders    {}\nbody       {body:?}{trouble}",
        response.status,
        headers.join("; ")
    ))
}
