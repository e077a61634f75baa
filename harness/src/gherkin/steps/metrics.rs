//! Steps about metrics. They speak of everything that the deployment exported, so the scenario has one of its own.

use super::super::{
    registry::{Arguments, Keyword, Need, StepDefinition},
    world::World,
};
use super::trace::values;
use crate::{
    capture::Capture,
    expectation::{MetricMatcher, TextMatcher},
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
                request: its metric reader's interval must be shorter than `patience`.",
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
    let judge = |capture: &Capture| {
        let total = matcher
            .total(capture.metrics())
            .map_err(|no_match| format!("expected   {}\n{no_match}", no_match.expected))?;
        // Histograms count measurements; a counter's value is its sum.
        let found =
            if total.count > total.series as u64 { total.count as f64 } else { total.sum.max(total.count as f64) };
        match count {
            Some(expected) if (found - expected as f64).abs() > f64::EPSILON => {
                Err(format!("expected   {expected}\nfound      {found} in {} series", total.series))
            }
            _ => Ok(()),
        }
    };
    let scene = world.scene()?;
    match count {
        Some(_) => scene.metrics_finally(judge).await,
        None => scene.in_time(judge).await,
    }
}
