//! The vocabulary. Each step is a few lines over the library; what it means stands beside it and makes the reference.

mod judge;
mod lifecycle;
mod logs;
mod metrics;
mod response;
mod sink;
mod soak;
mod stimulus;
mod trace;

use super::registry::StepDefinition;

/// Every group of steps, as the reference shows them.
pub(super) const ALL: &[(&str, &[StepDefinition])] = &[
    ("What is sent", stimulus::STEPS),
    ("The life of the deployment", lifecycle::STEPS),
    ("The collector", sink::STEPS),
    ("A soak", soak::STEPS),
    ("The answer", response::STEPS),
    ("The trace", trace::STEPS),
    ("Log records and lines", logs::STEPS),
    ("Metrics", metrics::STEPS),
];

/// What stands before the steps in their reference.
pub(super) const INTRODUCTION: &str = "\
Every scenario needs a `When` and a `Then`. `And` and `But` go on with the keyword before them. Steps speak of the last
thing that was sent, unless they say otherwise. What is wrong with a feature (an unknown step, a table below a step that takes none, a
regular expression that is none, an outline without a row) is told before anything is started.

**Parameters.** `{text}` is quoted text (`\\\"` and `\\\\` inside), `{int}` a whole number, `{method}` an HTTP method in
capitals, `{target}` a path with an optional query as a client writes it, `{kind}` one of SERVER, CLIENT, INTERNAL,
PRODUCER, CONSUMER, `{status}` one of Unset, Ok, Error, `{value}` the rest of the line, `{lapse}` a time like `2 s` or `500 ms`,
`{exports}` export requests of one signal or of all, counted or for a time: `the next 3 traces requests`, `the next 1
request`, `logs requests for 2 s`, `requests for 500 ms`. A time begins with the first request that it is about.

**Values** in tables and shapes: `200` is the int 200 and nothing else, `0.5` a double, `true` a bool, `\"200\"` the
string 200, `/…/` a regular expression over the value as text, `*` any value, anything else the string as it stands. In a
table `\\\\` stands for a backslash and `\\|` for a bar, as Gherkin has it: `/^2\\\\d\\\\d$/`.

**Names** of spans: the exact name, or `/…/` for a regular expression.

**Waiting.** A step that expects something wakes on arrival and holds as soon as it is there. A step that says that
something is absent, counts, or speaks of every span or line is judged once it is proven that nothing more will come:
the environment froze, the process exited, or a later request's telemetry (a fence) came through. `patience` in
tracegate.toml bounds both.

**Tags.** A label of a deployment (`@lambda`, `@http`, `@process`, `@container`, `@workers`; `@gateway` and its kind,
`@rest-api`, `@http-api`, `@alb`, `@function-url`; its name, its `labels`) keeps a scenario on deployments that have it,
`@not-LABEL` on those that have not. `@isolated` gives a scenario
a deployment of its own, `@alone` the shared one to itself; steps that need either ask for it by themselves.
`@except:RULE` opts out of an invariant, with a reason in the scenario's description; `tracegate invariants` prints them.
";
