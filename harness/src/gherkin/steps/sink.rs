//! Steps about the collector: what it does wrong, and what a sound exporter makes of it.

use std::{collections::BTreeMap, time::Duration};

use futures::future::LocalBoxFuture;
use http::StatusCode;
use tokio::time::Instant;

use super::super::{
    registry::{Arguments, Keyword, Need, StepDefinition, StepResult},
    world::{Ordeal, Scene, Sent, World},
};
use crate::{
    capture::{
        Capture, Mark, Signal,
        sink::behaviour::{Act, Incident, Lasting, Rule},
    },
    deployment::Memory,
    expectation::exporter::{
        Answer, LEAST_CALM, Telemetry, answers_as_before, nothing_came_twice, nothing_is_lost,
        nothing_refused_came_again,
    },
    report::Problem,
};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector refuses {exports} with {int}",
        about: "They are not taken, and the exporter is told this HTTP status, or over gRPC the code that says the same: \
                503 and 502 UNAVAILABLE, 504 DEADLINE_EXCEEDED, 429 RESOURCE_EXHAUSTED (retryable over gRPC only with a \
                time to wait), 400 INVALID_ARGUMENT, 401 UNAUTHENTICATED, 403 PERMISSION_DENIED, 404 NOT_FOUND, others \
                INTERNAL.",
        example: "Given the collector refuses the next 3 traces requests with 503",
        need: Need::Own,
        run: |world, arguments| refuse(world, arguments, None),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector refuses {exports} with {int} and asks to wait {lapse}",
        about: "The same with `Retry-After`, over gRPC `google.rpc.RetryInfo`.",
        example: "Given the collector refuses the next 2 requests with 429 and asks to wait 1 s",
        need: Need::Own,
        run: |world, arguments| refuse(world, arguments, Some(2)),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector calls one item of {exports} rejected",
        about: "They are taken, and answered with a partial success: the exporter must not send them again.",
        example: "Given the collector calls one item of the next 1 logs request rejected",
        need: Need::Own,
        run: |world, arguments| act(world, arguments, 0, |_| Ok(Act::Partial)),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector takes {lapse} to answer {exports}",
        about: "They are taken and answered as usual, only late.",
        example: "Given the collector takes 800 ms to answer requests for 3 s",
        need: Need::Own,
        run: |world, arguments| act(world, arguments, 1, |arguments| Ok(Act::Slow(lapse(arguments.text(0))?))),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector hangs on {exports}",
        about: "They are held without an answer: until the time is over, and then they are taken as usual; or, when they are \
                counted, until the exporter gives up.",
        example: "Given the collector hangs on logs requests for 2 s",
        need: Need::Own,
        run: |world, arguments| act(world, arguments, 0, |_| Ok(Act::Hang)),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector resets the connection of {exports}",
        about: "In the place of an answer the connection is reset, and with it all that is under way on it. Nothing of them \
                is taken.",
        example: "Given the collector resets the connection of the next 2 requests",
        need: Need::Own,
        run: |world, arguments| act(world, arguments, 0, |_| Ok(Act::Reset)),
    },
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the collector goes away",
        about: "As if it were killed: its connections are reset, and new ones are refused until it comes back.",
        example: "Given the collector goes away",
        need: Need::Own,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                endure(scene).await;
                scene.instance.collector_goes_away().await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "the collector comes back",
        about: "It listens again at the same address.",
        example: "When the collector comes back",
        need: Need::Own,
        run: |world, _| Box::pin(async { world.scene()?.instance.collector_comes_back().await }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the service answers as before",
        about: "Every request since the collector began to misbehave was answered with a status that the same request got \
                before, and no slower than ten times the median of the answers before and half a second. Of the time for \
                which this machine held up what ran on it (Linux: `/proc/pressure`, and what a hypervisor stole) seven \
                eighths are not counted, with another half a second where that is most of the time, and half where half of the answers \
                were slow. At least three requests must \
                have been sent before.",
        example: "Then the service answers as before",
        need: Need::Own,
        run: |world, _| Box::pin(async { answered_as_before(world.scene()?) }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "nothing is lost",
        about: "Every request since the collector began to misbehave left at least the spans and the exported log records, \
                by kind and name, that the same request left before. Waits for `patience`, because exporters retry.",
        example: "Then nothing is lost",
        need: Need::Own,
        run: |world, _| Box::pin(async { lost_nothing(world.scene()?).await }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "nothing arrives twice",
        about: "No span (by its ids) and no exported log record (by ids, time, body and attributes) came in two requests \
                that the collector took. What it refused, held or reset was not taken.",
        example: "Then nothing arrives twice",
        need: Need::Own,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                met(scene).await?;
                scene.finally(|seen| nothing_came_twice(seen.capture)).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "what the collector refused for good is not sent again",
        about: "No span and no log record of a request that was answered with a status that must not be retried, or with a \
                partial success, came in a later request. Points of metrics have no identity, so one request of traces or logs \
                must have met the refusal: `the next 1 traces request`.",
        example: "Then what the collector refused for good is not sent again",
        need: Need::Own,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                met(scene).await?;
                let incidents = scene.instance.incidents();
                can_tell_what_comes_again(&incidents.so_far()).map_err(Problem::errored)?;
                scene.finally(|seen| nothing_refused_came_again(seen.capture, &incidents.so_far())).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the memory of the service grows by at most {int} MB",
        about: "What all processes of the service hold (VmRSS), and the most that they ever held (VmHWM), each compared with \
                the moment at which the collector began to misbehave. For processes only.",
        example: "Then the memory of the service grows by at most 64 MB",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let most: u64 = arguments.number(0)?;
                let scene = world.scene()?;
                let before = match &ordeal(scene)?.memory {
                    Ok(memory) => *memory,
                    Err(problem) => return Err(Problem::errored(problem.clone())),
                };
                let after = scene.instance.memory()?;
                grew_by_at_most(most, before, after).map_err(Problem::failed)
            })
        },
    },
];

fn refuse<'a>(world: &'a mut World, arguments: &'a Arguments, wait: Option<usize>) -> LocalBoxFuture<'a, StepResult> {
    act(world, arguments, 0, move |arguments| {
        let status: u16 = arguments.number(1)?;
        let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
        let status = status.ok_or_else(|| {
            Problem::errored(format!("{} is no HTTP status of a refusal: name one from 400 to 599", arguments.text(1)))
        })?;
        let retry = wait.map(|at| lapse(arguments.text(at))).transpose()?;
        Ok(Act::Refuse { status, retry })
    })
}

fn act<'a>(
    world: &'a mut World,
    arguments: &'a Arguments,
    exports: usize,
    act: impl FnOnce(&Arguments) -> Result<Act, Problem> + 'a,
) -> LocalBoxFuture<'a, StepResult> {
    Box::pin(async move {
        let act = act(arguments)?;
        let (signal, lasting) = which(arguments.text(exports))?;
        let scene = world.scene()?;
        endure(scene).await;
        scene.instance.misbehave(&format!("{} {act}", arguments.text(exports)), Rule { signal, act, lasting })
    })
}

/// `the next 3 traces requests`, `logs requests for 2 s`, `requests for 500 ms`.
fn which(text: &str) -> Result<(Option<Signal>, Lasting), Problem> {
    let signal = text.split(' ').find_map(|word| match word {
        "traces" => Some(Signal::Traces),
        "logs" => Some(Signal::Logs),
        "metrics" => Some(Signal::Metrics),
        "profiles" => Some(Signal::Profiles),
        _ => None,
    });
    let lasting = match (text.strip_prefix("the next "), text.rsplit_once(" for ")) {
        (Some(rest), _) => {
            let count = rest.split(' ').next().and_then(|count| count.parse().ok()).filter(|&count| count > 0);
            Lasting::Requests(count.ok_or_else(|| Problem::errored(format!("{text:?} is no number of requests")))?)
        }
        (None, Some((_, time))) => Lasting::For(lapse(time)?),
        (None, None) => return Err(Problem::errored(format!("{text:?} does not say how long"))),
    };
    Ok((signal, lasting))
}

/// `2 s`, `500 ms`.
fn lapse(text: &str) -> Result<Duration, Problem> {
    let unreadable = || Problem::errored(format!("{text:?} is no time: write it like 2 s or 500 ms"));
    let (number, unit) = text.split_once(' ').ok_or_else(unreadable)?;
    let number: u32 = number.parse().map_err(|_| unreadable())?;
    Ok(Duration::from_millis(u64::from(number) * if unit == "s" { 1000 } else { 1 }))
}

/// Remembers how it was before the collector began to misbehave, once: the requests so far were the calm ones. Their
/// telemetry is waited for, so that nothing of theirs meets the misbehaviour.
async fn endure(scene: &mut Scene) {
    if scene.ordeal.is_none() {
        scene.settle_so_far().await;
        let memory = scene.instance.memory().map_err(|problem| problem.message);
        scene.ordeal = Some(Ordeal { calm: scene.sent.len(), memory });
    }
}

fn ordeal(scene: &Scene) -> Result<&Ordeal, Problem> {
    let ordeal = scene.ordeal.as_ref();
    ordeal.ok_or_else(|| Problem::errored("the collector did nothing wrong yet: a Given step must say what"))
}

/// Requests before and since, of which there must be enough.
fn calm_and_since(scene: &Scene) -> Result<(&[Sent], &[Sent]), Problem> {
    let (calm, since) = scene.sent.split_at(ordeal(scene)?.calm);
    if calm.len() < LEAST_CALM {
        return Err(Problem::errored(format!(
            "{} requests were sent before the collector misbehaved: send at least {LEAST_CALM}, to know what is usual",
            calm.len()
        )));
    }
    if since.is_empty() {
        return Err(Problem::errored("no request was sent since the collector misbehaves"));
    }
    Ok((calm, since))
}

fn name(sent: &Sent) -> String {
    format!("{} {}", sent.delivery.method, sent.delivery.target)
}

fn answered_as_before(scene: &Scene) -> StepResult {
    let (calm, since) = calm_and_since(scene)?;
    let judged = scene.instance.store().look(|capture| {
        let held_up = |sent: &Sent| {
            let micros = capture.lifecycle().iter().find_map(|entry| match &entry.mark {
                Mark::HeldUp { delivery, micros } if *delivery == sent.delivery.mark => Some(*micros),
                _ => None,
            });
            Duration::from_micros(micros.unwrap_or_default())
        };
        let answer = |sent: &Sent| Answer {
            request: name(sent),
            status: sent.delivery.response.status,
            took: sent.delivery.took(),
            held_up: held_up(sent),
        };
        let answers = |sent: &[Sent]| -> Vec<Answer> { sent.iter().map(answer).collect() };
        answers_as_before(&answers(calm), &answers(since))
    });
    judged.map_err(|message| failed(scene, &message))
}

async fn lost_nothing(scene: &Scene) -> StepResult {
    let (calm, since) = calm_and_since(scene)?;
    met(scene).await?;
    let judge = |capture: &Capture| {
        let left = |sent: &[Sent]| -> Vec<(String, Telemetry)> {
            sent.iter().map(|sent| (name(sent), Telemetry::of(&scene.evidence(capture, sent)))).collect()
        };
        nothing_is_lost(&left(calm), &left(since))
    };
    let patience = scene.stage.spec.patience;
    let store = scene.instance.store();
    if store.until(Instant::now() + patience, |capture| judge(capture).ok()).await.is_some() {
        return Ok(());
    }
    let message = store.look(judge).err().unwrap_or_default();
    Err(failed(scene, &format!("{message}\nwaited     {patience:?}")))
}

/// Waits until every misbehaviour met a request: what met none proves nothing.
async fn met(scene: &Scene) -> StepResult {
    ordeal(scene)?;
    let unmet = scene.instance.unmet(Instant::now() + scene.stage.spec.patience).await;
    if unmet.is_empty() {
        return Ok(());
    }
    Err(Problem::errored(format!(
        "unproven   the collector was sent no request that should have met this: {}\nwaited     {:?} on {}",
        unmet.join("; "),
        scene.stage.spec.patience,
        scene.stage.spec.name
    )))
}

/// With what the sink did, and to whom.
fn failed(scene: &Scene, message: &str) -> Problem {
    let done: Vec<String> = scene.instance.store().look(|capture| {
        let marks = capture.lifecycle().iter().map(|entry| &entry.mark);
        marks.filter_map(Mark::at_the_sink).map(|what| format!("sink       {what}")).collect()
    });
    Problem::failed(format!("{message}\n{}\non         {}", done.join("\n"), scene.stage.spec.name))
}

/// Whether something was refused for good that would be known again. Points of metrics have no identity: the same series comes
/// with every export.
fn can_tell_what_comes_again(incidents: &[Incident]) -> Result<(), String> {
    let last: Vec<&Incident> = incidents.iter().filter(|incident| incident.act.is_final()).collect();
    if last.iter().any(|incident| matches!(incident.signal, Signal::Traces | Signal::Logs)) {
        return Ok(());
    }
    let what = |incidents: &[&Incident]| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for incident in incidents {
            *counts.entry(format!("{} ({})", incident.signal, incident.act)).or_default() += 1;
        }
        let each = counts.into_iter().map(|(what, count)| format!("{count} of {what}"));
        each.collect::<Vec<_>>().join(", ")
    };
    let (why, met) = if last.is_empty() {
        ("nothing for good", what(&incidents.iter().collect::<Vec<_>>()))
    } else {
        ("nothing for good that would be known again", what(&last))
    };
    let met = if met.is_empty() { "no request met any misbehaviour".into() } else { format!("requests met it: {met}") };
    Err(format!(
        "the collector refused {why} in this scenario; {met}. Let it refuse `the next 1 traces request` or `the next 1 logs \
         request` with a status like 400, so that requests of other signals do not take the refusal"
    ))
}

fn grew_by_at_most(megabytes: u64, before: Memory, after: Memory) -> Result<(), String> {
    let grown = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1e6;
    let resident = grown(before.resident, after.resident);
    let peak = grown(before.peak, after.peak);
    if resident.max(peak) <= megabytes as f64 {
        return Ok(());
    }
    Err(format!(
        "expected   the service holds at most {megabytes} MB more than before\nfound      it holds {resident:.1} MB more, \
         and its peak is {peak:.1} MB higher, than the {:.1} MB before",
        before.resident as f64 / 1e6
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_told_apart_by_signal_number_and_time() {
        assert_eq!(which("the next 3 traces requests").unwrap(), (Some(Signal::Traces), Lasting::Requests(3)));
        assert_eq!(which("the next 1 request").unwrap(), (None, Lasting::Requests(1)));
        let half_a_second = Lasting::For(Duration::from_millis(500));
        assert_eq!(which("logs requests for 500 ms").unwrap(), (Some(Signal::Logs), half_a_second));
        assert!(which("the next 0 requests").unwrap_err().message.contains("is no number of requests"));
        assert!(which("the next 99999999999 requests").is_err());
        assert!(lapse("99999999999 s").unwrap_err().message.contains("is no time"));
    }

    #[test]
    fn what_was_refused_for_good_would_be_known_again_unless_it_was_metrics() {
        let incident = |signal, status| {
            let act = Act::Refuse { status: StatusCode::from_u16(status).unwrap(), retry: None };
            Incident { arrival: Default::default(), signal, act, items: Default::default() }
        };
        let (metrics, traces) = (incident(Signal::Metrics, 400), incident(Signal::Traces, 400));
        assert_eq!(can_tell_what_comes_again(&[metrics.clone(), traces]), Ok(()));
        assert_eq!(can_tell_what_comes_again(&[incident(Signal::Logs, 400)]), Ok(()));
        let only_metrics = can_tell_what_comes_again(&[metrics.clone(), metrics]).unwrap_err();
        for part in ["would be known again", "2 of metrics (refused with 400", "`the next 1 traces request`"] {
            assert!(only_metrics.contains(part), "{part} is missing in: {only_metrics}");
        }
        let for_now = can_tell_what_comes_again(&[incident(Signal::Traces, 503)]).unwrap_err();
        assert!(
            for_now.contains("nothing for good in this") && for_now.contains("1 of traces (refused with 503"),
            "{for_now}"
        );
        assert!(can_tell_what_comes_again(&[]).unwrap_err().contains("no request met any misbehaviour"));
    }

    #[test]
    fn memory_may_grow_by_what_is_allowed_and_by_no_more_neither_now_nor_at_its_peak() {
        let memory = |resident: u64, peak: u64| Memory { resident: resident * 1_000_000, peak: peak * 1_000_000 };
        assert_eq!(grew_by_at_most(8, memory(20, 30), memory(28, 38)), Ok(()));
        assert_eq!(grew_by_at_most(8, memory(20, 30), memory(10, 30)), Ok(()));
        let resident = grew_by_at_most(8, memory(20, 30), memory(29, 30)).unwrap_err();
        assert!(
            resident.contains("it holds 9.0 MB more") && resident.contains("than the 20.0 MB before"),
            "{resident}"
        );
        assert!(grew_by_at_most(8, memory(20, 30), memory(20, 39)).unwrap_err().contains("peak is 9.0 MB higher"));
    }
}
