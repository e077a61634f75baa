//! Steps about metrics. They speak of everything that the deployment exported, so the scenario has one of its own.

use std::collections::BTreeMap;

use super::super::{
    registry::{Arguments, Keyword, Need, StepDefinition},
    world::World,
};
use super::trace::values;
use crate::{
    capture::{Capture, Mark},
    config::{self, Ready},
    expectation::{MetricMatcher, MetricTotal, TextMatcher},
    report::Problem,
};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the metric {text} is exported",
        about: "A metric of this name came with at least one data point.",
        example: "Then the metric \"http.server.active_requests\" is exported",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = named(arguments.text(0))?;
                total(world, matcher, None).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the metric {text} has a data point with the attributes",
        about: "One of its data points has these attributes, by name, value and type.",
        example: "Then the metric \"http.server.request.duration\" has a data point with the attributes\n  | attribute  | value    \
                  |\n  | http.route | \"/files/\" |",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = with_attributes(arguments, 0)?;
                total(world, matcher, None).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the metric {text} counts {int} request(s) with the attributes",
        about: "The measurements of a histogram, or the value of a counter, over the latest points with these attributes, \
                all processes added up. Judged once every process has exported what it had collected since the last \
                request: its metric reader's interval must be shorter than `patience`. Requests of the harness's own, for readiness \
                and completeness (`ready`, `fence`), count too where they fall into these series: name a route that only the \
                scenario asks for, or set `fence` to another path. Where the harness had to repeat a `GET` of the scenario for \
                completeness, that one may be counted and need not be. 0 holds where the metric came and no point of it has these \
                attributes.",
        example: "Then the metric \"http.server.request.duration\" counts 1 request with the attributes\n  | attribute  | value    \
                  |\n  | http.route | \"/files/\" |",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let count: u64 = arguments.number(1)?;
                let matcher = with_attributes(arguments, 0)?;
                total(world, matcher, Some(count)).await
            })
        },
    },
];

fn named(name: &str) -> Result<MetricMatcher, Problem> {
    let name = TextMatcher::parse(name).map_err(|error| Problem::from_error(&error))?;
    Ok(MetricMatcher { name: Some(name), ..MetricMatcher::default() })
}

fn with_attributes(arguments: &Arguments, name: usize) -> Result<MetricMatcher, Problem> {
    let attributes = values(arguments.table(&["attribute", "value"])?)?;
    Ok(MetricMatcher { attributes, ..named(arguments.text(name))? })
}

async fn total(world: &mut World, matcher: MetricMatcher, count: Option<u64>) -> Result<(), Problem> {
    let scene = world.scene()?;
    let (stage, sent) = (scene.stage.clone(), scene.sent.len());
    let asked: Vec<(String, String)> =
        scene.sent.iter().map(|sent| (sent.delivery.method.clone(), sent.delivery.target.clone())).collect();
    let judge = |capture: &Capture| {
        let total = match matcher.total(capture.metrics()) {
            Ok(total) => total,
            // What was not counted has no series; that its instrument is there says that it would be counted.
            Err(_) if count == Some(0) && matcher.has_instrument(capture.metrics()) => MetricTotal::default(),
            Err(no_match) => return Err(format!("expected   {}\n{no_match}", no_match.expected)),
        };
        let found = total.counted;
        match count {
            Some(expected)
                if !(expected as f64..=(expected + repeated(capture, &asked, expected)) as f64).contains(&found) =>
            {
                let message = format!("expected   {expected}\nfound      {found} in {} series", total.series);
                let own = (found > expected as f64).then(|| of_the_harness(capture, &stage.spec, sent)).flatten();
                Err(own.map_or(message.clone(), |own| format!("{message}\nown        {own}")))
            }
            _ => Ok(()),
        }
    };
    match count {
        Some(_) => scene.metrics_finally(judge).await,
        None => scene.in_time(judge).await,
    }
}

/// How often the harness has asked, for completeness, what so many requests of the scenario have `asked`, which are methods and
/// targets: a measurement of those requests may be one of that too. Where other requests were asked again, that is no
/// excuse for these.
fn repeated(capture: &Capture, asked: &[(String, String)], expected: u64) -> u64 {
    let mut of_target: BTreeMap<&(String, String), (u64, u64)> = BTreeMap::new();
    for request in asked {
        of_target.entry(request).or_default().0 += 1;
    }
    for entry in capture.lifecycle() {
        if let Mark::FenceSent { target, .. } = &entry.mark
            && let Some((_, again)) = of_target.get_mut(&("GET".to_owned(), target.clone()))
        {
            *again += 1;
        }
    }
    // Which targets fall into the series is the service's affair: those that were asked for as often as is expected.
    let mut most = BTreeMap::from([(0, 0)]);
    for (times, again) in of_target.into_values() {
        let with: Vec<(u64, u64)> = most.iter().map(|(so_far, most)| (so_far + times, most + again)).collect();
        for (together, again) in with.into_iter().filter(|(together, _)| *together <= expected) {
            let known = most.entry(together).or_default();
            *known = again.max(*known);
        }
    }
    most.get(&expected).copied().unwrap_or_default()
}

/// What the harness asked of the service so far besides the requests of the scenario, of which there were `sent`, and what to do
/// about it. `None` where it asked nothing, as of a function.
fn of_the_harness(capture: &Capture, spec: &config::Deployment, sent: usize) -> Option<String> {
    let marks = || capture.lifecycle().iter().map(|entry| &entry.mark);
    let asked = marks().filter(|mark| matches!(mark, Mark::ReadyAsked)).count();
    // Worker processes are woken by requests like those of a scenario.
    let all = marks().filter(|mark| matches!(mark, Mark::Sent { .. })).count();
    let fences = marks().filter(|mark| matches!(mark, Mark::FenceSent { .. })).count() + all.saturating_sub(sent);
    let fence = spec.fence_target();
    let mut own = Vec::new();
    if fences > 0 {
        own.push(format!("{fences} requests for completeness (GET {fence}, or a GET of the scenario once more)"));
    }
    if let (1.., Some(Ready::Http(target))) = (asked, &spec.ready) {
        own.push(format!("{asked} for readiness (GET {target}, until it was answered)"));
    }
    (!own.is_empty()).then(|| {
        format!(
            "the harness sent {}; those in these series are counted too: name a route in the attributes that only the \
             scenario asks for, or set `fence` to another path",
            own.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{capture::Store, config::Config};

    #[test]
    fn what_was_asked_again_for_completeness_may_be_measured_and_what_was_not_may_not() {
        let store = Store::default();
        for target in ["/orders/1", "/orders/1", "/fence", "/other"] {
            store.mark(Mark::FenceSent { fence: "f".into(), target: target.into() });
        }
        let allowed = |asked: &[(&str, &str)], expected| {
            let asked: Vec<(String, String)> =
                asked.iter().map(|(method, target)| ((*method).to_owned(), (*target).to_owned())).collect();
            store.look(|capture| repeated(capture, &asked, expected))
        };
        let (one, two, other) = (("GET", "/orders/1"), ("GET", "/orders/2"), ("GET", "/other"));
        assert_eq!(allowed(&[one, one, one], 3), 2);
        assert_eq!(allowed(&[one, one, one], 2), 0);
        assert_eq!(allowed(&[two, two], 2), 0);
        assert_eq!(allowed(&[("POST", "/orders/1")], 1), 0);
        assert_eq!(allowed(&[one, two, other], 3), 3);
        assert_eq!(allowed(&[one, two, other], 1), 2);
    }

    #[test]
    fn requests_of_the_harnesss_own_are_told_with_their_targets() {
        let text = "[deployments.web]\nkind = 'process'\ncommand = ['x']\nready = { http = '/up' }\nfence = '/orders'";
        let config = Config::parse(text, Path::new("/"), Path::new("tracegate.toml")).unwrap();
        let spec = &config.deployments["web"];
        let store = Store::default();
        store.mark(Mark::Sent { delivery: "of the scenario".into() });
        assert_eq!(store.look(|capture| of_the_harness(capture, spec, 1)), None);
        store.mark(Mark::ReadyAsked);
        store.mark(Mark::ReadyAsked);
        let own = store.look(|capture| of_the_harness(capture, spec, 1)).unwrap();
        assert!(own.starts_with("the harness sent 2 for readiness (GET /up, until it was answered); "), "{own}");
        store.mark(Mark::FenceSent { fence: "f".into(), target: String::new() });
        store.mark(Mark::Sent { delivery: "to wake a worker".into() });
        let own = store.look(|capture| of_the_harness(capture, spec, 1)).unwrap();
        for part in ["sent 2 requests for completeness (GET /orders, or", " and 2 for readiness (GET /up", "`fence`"] {
            assert!(own.contains(part), "{part} is missing in: {own}");
        }
    }
}
