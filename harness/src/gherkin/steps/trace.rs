//! Steps about the spans of a request.

use super::{
    super::{
        registry::{Arguments, Keyword, Need, StepDefinition},
        world::{Scene, World},
    },
    judge::{
        all_carry_on, both, carries_on, event_header, hanging, hangs_on, hangs_on_event, links_to, no_spans,
        started_its_own, trace_is, whole,
    },
};
use crate::{
    capture::Capture,
    expectation::{Canary, Shape, SpanMatcher, TextMatcher, ValueMatcher},
    invariant::Suspects,
    report::Problem,
    stimulus::{Caller, ContextForm},
    telemetry::{Span, SpanKind, StatusCode},
};

/// The columns of a table of attributes.
const ATTRIBUTES: [&str; 2] = ["attribute", "value"];

/// The caller that the service was told of by the last request.
fn caller(scene: &Scene) -> Result<Caller, Problem> {
    let delivery = &scene.last()?.delivery;
    delivery.caller.ok_or_else(|| Problem::errored("the client sent no trace context, so there is no caller"))
}

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace ID is that of the caller",
        about: "The service carried on the trace that the client's headers name.",
        example: "Then the trace ID is that of the caller",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let caller = caller(scene)?.trace_id;
                scene.eventually(|seen| trace_is(seen, caller, "the caller's trace")).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace ID is that of the event's X-Amzn-Trace-Id header",
        about: "The Root in the header of the event that was delivered, a gateway's or a literal one, is the trace of the \
                invocation's spans.",
        example: "Then the trace ID is that of the event's X-Amzn-Trace-Id header",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let root = event_header(&scene.last()?.delivery).map_err(Problem::errored)?.root;
                scene.eventually(|seen| trace_is(seen, root, "the trace in the event's header")).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the service started a trace of its own",
        about: "The request came without a trace context, and its spans are a new trace whose root has no parent: not that of a header that \
                a gateway added either.",
        example: "Then the service started a trace of its own",
        need: Need::Alone,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                if scene.last()?.delivery.form != ContextForm::Absent {
                    return Err(Problem::errored(
                        "the client sent a trace context, which is to be carried on: begin the scenario with `Given the client \
                         sends no trace context`",
                    ));
                }
                scene.eventually(started_its_own).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace hangs on the caller's span",
        about: "The entry span's parent is the span that the client's headers name.",
        example: "Then the trace hangs on the caller's span",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let caller = caller(scene)?.span_id;
                scene.eventually(|seen| hangs_on(seen, caller, "the caller's span")).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace hangs on the span in the runtime's trace header",
        about: "The entry span's parent is the `Parent` of the `Lambda-Runtime-Trace-Id` header, as `xray-lambda` has it.",
        example: "Then the trace hangs on the span in the runtime's trace header",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let invocation = scene.last()?.delivery.invocation.as_ref();
                let parent = invocation.and_then(|invocation| invocation.runtime_parent).ok_or_else(|| {
                    Problem::errored("no trace header was handed out by a runtime: this deployment is no function, or was not invoked")
                })?;
                scene.eventually(|seen| hangs_on(seen, parent, "the span in the runtime's trace header")).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace hangs on the event's X-Amzn-Trace-Id header",
        about: "The entry span's parent is the `Parent` of the header in the event that was delivered. Where that header has a \
                `Root` only, as gateways add it, the entry span is the root span of that trace: it has no parent. For functions \
                that go by the event and not by the runtime's header, whose parent Lambda makes.",
        example: "Then the trace hangs on the event's X-Amzn-Trace-Id header",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let header = event_header(&scene.last()?.delivery).map_err(Problem::errored)?;
                scene.eventually(|seen| hangs_on_event(seen, &header)).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace is whole",
        about: "Every request of the scenario has one entry span, which hangs on the caller's when there is one and is in its \
                trace, and none of these invariants is broken: `remote-parent`, `one-entry`, `no-orphan`, `no-duplicate`, \
                `no-cycle`, `end-after-start`, `one-trace`.",
        example: "Then the trace is whole",
        need: Need::Alone,
        run: |world, _| Box::pin(async { world.scene()?.finally_each(whole).await }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the request is correlated",
        about: "The trace of every request of the scenario is whole, there is at least one log record or structured line of it, \
                and every one of them meets the five conditions: its ids are not zero; the span they name was received in \
                that trace; that span is one of the request that the line speaks of; the trace is the caller's; on Lambda its \
                request id is the invocation's. What the caller does not sample has no spans and still has lines. Requests that were sent \
                at the same time and also alone are not mixed either: see “the requests at the same time do not mix”.",
        example: "Then the request is correlated",
        need: Need::Alone,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                scene
                    .finally_each(|seen| {
                        let trace = if seen.evidence.sampled() { whole(seen) } else { no_spans(seen) };
                        both(trace, super::logs::every_record_is_correlated(seen))
                    })
                    .await?;
                scene.keeps_requests_apart()
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the requests at the same time do not mix",
        about: "Each request that was sent at the same time as others like it left the spans and lines that one leaves which \
                is sent alone: none has too many while another has too few, as with a context in a global variable. The \
                scenario sends one alone before or behind.",
        example: "Then the requests at the same time do not mix",
        need: Need::Alone,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                scene.can_tell_requests_apart()?;
                scene.finally_each(|_| Ok(())).await?;
                scene.leaves_something()?;
                scene.keeps_requests_apart()
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "no span is exported for the request",
        about: "Judged once completeness is proven. Right for what the caller does not sample.",
        example: "Then no span is exported for the request",
        need: Need::Shared,
        run: |world, _| Box::pin(async { world.scene()?.finally_each(no_spans).await }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has a {kind} span {text}",
        about: "At least one span of the request is of this kind and has this name.",
        example: "Then the trace has a SERVER span \"GET /files/{path}\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = SpanMatcher { kind: Some(kind(arguments.text(0))), ..named(arguments.text(1))? };
                has(world, matcher).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has a {kind} span {text} with status {status}",
        about: "The same with the span's status code.",
        example: "Then the trace has a CLIENT span \"S3.GetObject\" with status Error",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let kind = Some(kind(arguments.text(0)));
                let status = Some(status(arguments.text(2)));
                has(world, SpanMatcher { kind, status, ..named(arguments.text(1))? }).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has a span {text} with status {status}",
        about: "The same for a span of any kind.",
        example: "Then the trace has a span \"/GetObject$/\" with status Error",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let status = Some(status(arguments.text(1)));
                has(world, SpanMatcher { status, ..named(arguments.text(0))? }).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has a {kind} span {text} with the attributes",
        about: "The same with attributes, by name, value and type. Other attributes may be there too.",
        example: "Then the trace has a SERVER span \"GET /files/\" with the attributes\n  | attribute                 | value |\n  \
                  | http.response.status_code | 200   |",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let attributes = expected(arguments)?;
                let matcher =
                    SpanMatcher { kind: Some(kind(arguments.text(0))), attributes, ..named(arguments.text(1))? };
                has(world, matcher).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the span {text} has the attributes",
        about: "A span of this name, of any kind, has these attributes.",
        example: "Then the span \"GET /files/\" has the attributes\n  | attribute  | value    |\n  | http.route | \"/files/\" |",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let attributes = expected(arguments)?;
                has(world, SpanMatcher { attributes, ..named(arguments.text(0))? }).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the span {text} has no attribute {text}",
        about: "Judged once completeness is proven: such a span is there, and none of its name has the attribute.",
        example: "Then the span \"GET\" has no attribute \"http.route\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = named(arguments.text(0))?;
                let key = arguments.text(1);
                world
                    .scene()?
                    .finally(|seen| {
                        let found =
                            matcher.find(seen.evidence.trace.spans()).map_err(|no_match| no_match.to_string())?;
                        let absent = SpanMatcher { absent: vec![key.to_owned()], ..SpanMatcher::default() };
                        for span in found {
                            if let Some(difference) = absent.differences(&span).first() {
                                return Err(format!("closest    {} {:?}: {difference}", span.kind, span.name));
                            }
                        }
                        Ok(())
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the span {text} has the event {text}",
        about: "A span of this name has an event of this name (`exception`, …).",
        example: "Then the span \"S3.GetObject\" has the event \"exception\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = named(arguments.text(0))?;
                let event = arguments.text(1);
                world
                    .scene()?
                    .eventually(|seen| {
                        let found =
                            matcher.find(seen.evidence.trace.spans()).map_err(|no_match| no_match.to_string())?;
                        if found.iter().any(|span| span.events.iter().any(|found| found.name == event)) {
                            return Ok(());
                        }
                        let events: Vec<&str> =
                            found.iter().flat_map(|span| &span.events).map(|event| event.name.as_str()).collect();
                        Err(format!(
                            "closest    {} {:?}: events {events:?} (expected {event:?})",
                            found[0].kind, found[0].name
                        ))
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the span {text} is a child of the span {text}",
        about: "Directly: the one names the other as its parent.",
        example: "Then the span \"S3.ListObjectsV2\" is a child of the span \"GET /files/\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let (child, parent) = (named(arguments.text(0))?, named(arguments.text(1))?);
                world
                    .scene()?
                    .eventually(|seen| {
                        let trace = &seen.evidence.trace;
                        let children = child.find(trace.spans()).map_err(|no_match| no_match.to_string())?;
                        let parents = parent.find(trace.spans()).map_err(|no_match| no_match.to_string())?;
                        let is_child =
                            |span: &Span| parents.iter().any(|parent| Some(parent.span_id) == span.parent_span_id);
                        if children.iter().any(|span| is_child(span)) {
                            Ok(())
                        } else {
                            Err(format!(
                                "expected   parent {}\nclosest    {}",
                                parents[0].span_id,
                                hanging(&children[0])
                            ))
                        }
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has no span {text}",
        about: "Judged once completeness is proven.",
        example: "Then the trace has no span \"/Object/\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = named(arguments.text(0))?;
                world
                    .scene()?
                    .finally(|seen| match matcher.find(seen.evidence.trace.spans()) {
                        Ok(found) => Err(format!("found      {} {:?}", found[0].kind, found[0].name)),
                        Err(_) => Ok(()),
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has {int} span(s)",
        about: "Exactly so many, judged once completeness is proven.",
        example: "Then the trace has 2 spans",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let expected: usize = arguments.number(0)?;
                world
                    .scene()?
                    .finally(|seen| match seen.evidence.trace.nodes().len() + seen.evidence.trace.duplicates.len() {
                        found if found == expected => Ok(()),
                        found => Err(format!("expected   {expected} spans\nfound      {found}")),
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the trace has the shape",
        about: "The whole tree: a line a span, children indented below their parent, kind and name, then, behind two spaces, \
                attributes as `key=value`, and `status=Error`. Siblings may come in any order. Every span has to be \
                accounted for; a line `...` allows further ones at its place. Judged once completeness is proven.",
        example: "Then the trace has the shape\n\"\"\"\nSERVER    GET /files/       http.response.status_code=200\n  CLIENT  \
                  S3.ListObjectsV2  rpc.service=S3\n\"\"\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let shape = Shape::parse(arguments.doc_string()?).map_err(|error| Problem::from_error(&error))?;
                world
                    .scene()?
                    .finally(|seen| {
                        shape.compare(&seen.evidence.trace).map_err(|mismatches| {
                            let mismatches: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
                            mismatches.join("\n")
                        })
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the resource has the attributes",
        about: "The resource of every span of the request has these attributes.",
        example: "Then the resource has the attributes\n  | attribute    | value           |\n  | service.name | serverless-axum |",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let attributes = expected(arguments)?;
                world
                    .scene()?
                    .finally(|seen| {
                        if seen.evidence.trace.is_empty() {
                            return Err("received   no spans".into());
                        }
                        for span in seen.evidence.trace.spans() {
                            // The matcher compares attributes; a resource's are looked at as if they were a span's.
                            let shown = Span { attributes: span.resource.attributes.clone(), ..(**span).clone() };
                            let matcher = SpanMatcher { attributes: attributes.clone(), ..SpanMatcher::default() };
                            let differences: Vec<String> =
                                matcher.differences(&shown).iter().map(ToString::to_string).collect();
                            if !differences.is_empty() {
                                let differences = differences.join(", ");
                                return Err(format!(
                                    "closest    resource of {} {:?}: {differences}",
                                    span.kind, span.name
                                ));
                            }
                        }
                        Ok(())
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the call to {text} carries the trace on from the span {text}",
        about: "A call that the stand-in `[upstreams.NAME]` took has a `traceparent` or an `X-Amzn-Trace-Id` header with the \
                trace of the request and that span as the parent.",
        example: "Then the call to \"s3\" carries the trace on from the span \"S3.ListObjectsV2\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = named(arguments.text(1))?;
                let upstream = arguments.text(0);
                world.scene()?.eventually(|seen| carries_on(seen, upstream, &matcher)).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "every call to {text} carries the trace on",
        about: "The stand-in `[upstreams.NAME]` took at least one call while the request was under way, and each of them names a span \
                of a request that was under way in its `traceparent` or `X-Amzn-Trace-Id`. Judged once completeness is proven.",
        example: "Then every call to \"s3\" carries the trace on",
        need: Need::Alone,
        run: |world, arguments| {
            Box::pin(async {
                let upstream = arguments.text(0);
                world.scene()?.finally(|seen| all_carry_on(seen, upstream)).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "a span {text} links to the span {text}",
        about: "A span with the first name, in whatever trace, has a link to a span of the request with the second name: so says a \
                consumer that begins a trace of its own whose message it took. Waits for `patience`, because it works behind the \
                answer.",
        example: "Then a span \"process jobs\" links to the span \"send jobs\"",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let (from, to) = (named(arguments.text(0))?, named(arguments.text(1))?);
                let scene = &*world.scene()?;
                let judge = |capture: &Capture| {
                    let sent = scene.last().map_err(|problem| problem.message)?;
                    links_to(capture, &scene.evidence(capture, sent), sent.delivery.sent.seq, &from, &to)
                };
                scene.in_time(judge).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "no secret is found in the telemetry",
        about: "No value that was declared a secret, and none that `[canaries]` plants, is in any span, resource, log record or line that this deployment sent, \
                plain, percent-encoded or in Base64. The finding names the place and not the value.",
        example: "Then no secret is found in the telemetry",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let secrets = &scene.draft.secrets;
                let canaries: Option<Vec<Canary>> = secrets
                    .iter()
                    .enumerate()
                    .map(|(at, value)| Canary::new(format!("secret {}", at + 1), value))
                    .collect();
                let Some(mut canaries) = canaries else {
                    return Err(Problem::errored(
                        "a secret of fewer than 6 bytes would be found by chance; use a longer one",
                    ));
                };
                let planted = scene.sent.iter().filter(|_| scene.stage.spec.canaries.is_some());
                canaries.extend(planted.flat_map(|sent| scene.canaries(&sent.delivery)));
                if canaries.is_empty() {
                    return Err(Problem::errored(
                        "no secret was declared: a Given step must come first, or [canaries] in tracegate.toml",
                    ));
                }
                scene
                    .finally(|seen| {
                        let capture = seen.capture;
                        let leaks = Suspects::of(capture, 0, &canaries).leaks(capture, 0, &canaries);
                        if leaks.is_empty() {
                            return Ok(());
                        }
                        let leaks: Vec<String> = leaks.iter().map(|leak| format!("leak       {leak}")).collect();
                        Err(leaks.join("\n"))
                    })
                    .await
            })
        },
    },
];

async fn has(world: &mut World, matcher: SpanMatcher) -> Result<(), Problem> {
    world
        .scene()?
        .eventually(|seen| {
            matcher.find(seen.evidence.trace.spans()).map(|_| ()).map_err(|no_match| no_match.to_string())
        })
        .await
}

pub(super) fn named(name: &str) -> Result<SpanMatcher, Problem> {
    let name = TextMatcher::parse(name).map_err(|error| Problem::from_error(&error))?;
    Ok(SpanMatcher { name: Some(name), ..SpanMatcher::default() })
}

/// The table of attributes below a step.
fn expected(arguments: &Arguments) -> Result<Vec<(String, ValueMatcher)>, Problem> {
    values(arguments.table(&ATTRIBUTES)?)
}

/// Names with what their values must be.
pub(super) fn values(rows: Vec<Vec<String>>) -> Result<Vec<(String, ValueMatcher)>, Problem> {
    rows.into_iter()
        .map(|row| {
            let value = ValueMatcher::parse(&row[1]).map_err(|error| Problem::from_error(&error))?;
            Ok((row[0].clone(), value))
        })
        .collect()
}

fn kind(text: &str) -> SpanKind {
    SpanKind::ALL.into_iter().find(|kind| kind.to_string() == text).unwrap_or_default()
}

fn status(text: &str) -> StatusCode {
    let all = [StatusCode::Unset, StatusCode::Ok, StatusCode::Error];
    all.into_iter().find(|status| status.to_string() == text).unwrap_or_default()
}
