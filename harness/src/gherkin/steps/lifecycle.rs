//! Steps about the life of what runs: cold starts, shutdown, workers, the freeze.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::super::{
    registry::{Keyword, Need, StepDefinition, StepResult},
    world::Sent,
};
use crate::{deployment::some_of, report::Problem, stimulus::Invocation};

/// How long a service may take to end after a signal before it is killed.
const GRACE: Duration = Duration::from_secs(10);

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Given,
        expression: "the next invocation is a cold start",
        about: "The execution environment is ended; the next event starts a new one.",
        example: "Given the next invocation is a cold start",
        need: Need::Own,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                scene.only_a_function_hears("a cold start")?;
                scene.instance.recycle().await?;
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "Lambda shuts the idle execution environment down",
        about: "As after some minutes without an invocation: extensions get `SHUTDOWN` with the reason `spindown`, what \
                has not ended 2 s later (0.5 s with internal extensions only, at once without any) is killed, and the \
                next invocation is a cold start. What is exported on the way out still counts.",
        example: "When Lambda shuts the idle execution environment down",
        need: Need::Own,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                scene.only_a_function_hears("a shutdown")?;
                match scene.instance.recycle().await? {
                    0 => Err(Problem::errored("no execution environment is running, so none can be shut down")),
                    _ => Ok(()),
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "the service is stopped with {signal}",
        about: "The signal is sent to the process group, or with `signal-to = \"leader\"` to its first process alone, or to the \
                container; what the service exports on its way out still counts. It is killed after 10 s. A function with extensions is shut \
                down as Lambda does it: SIGTERM to the runtime, which has 0.6 s, and 2 s in all.",
        example: "When the service is stopped with SIGTERM",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let signal = if arguments.text(0) == "SIGINT" { Signal::SIGINT } else { Signal::SIGTERM };
                let exit = world.scene()?.instance.stop(signal, GRACE).await?;
                if exit.orderly {
                    Ok(())
                } else {
                    let signal = arguments.text(0);
                    Err(Problem::failed(format!(
                        "expected   the service ends in the time that it has after {signal}: 10 s, or 2 s for a function with extensions, \
                         0.6 s of it for its runtime\nreceived   {}",
                        exit.status
                    )))
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "it was a cold start",
        about: "The invocation was the first one of its execution environment.",
        example: "Then it was a cold start",
        need: Need::Shared,
        run: |world, _| Box::pin(async { start_was(invocation(world.scene()?.last()?)?, Start::Cold) }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "it was a warm start",
        about: "The invocation was not the first one of its execution environment.",
        example: "Then it was a warm start",
        need: Need::Shared,
        run: |world, _| Box::pin(async { start_was(invocation(world.scene()?.last()?)?, Start::Warm) }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "invocations {int} and {int} were in the same execution environment",
        about: "Two invocations of the scenario, counted from 1 in the order in which they were sent.",
        example: "Then invocations 1 and 2 were in the same execution environment",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let (one, other) = (arguments.number(0)?, arguments.number(1)?);
                together(&world.scene()?.sent, one, other, true)
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "invocations {int} and {int} were in different execution environments",
        about: "As above, and not in one.",
        example: "Then invocations 2 and 3 were in different execution environments",
        need: Need::Shared,
        run: |world, arguments| {
            Box::pin(async {
                let (one, other) = (arguments.number(0)?, arguments.number(1)?);
                together(&world.scene()?.sent, one, other, false)
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "every worker process exports spans",
        about: "As many worker processes as the deployment's `workers` show themselves, each by a `service.instance.id` or a \
                `process.pid` of its own in the resource of the spans with which it takes requests: what hangs on the caller, or is a SERVER span. Requests are sent until they have, or `patience` is over.",
        example: "Then every worker process exports spans",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let (workers, patience) = (scene.stage.spec.workers, scene.stage.spec.patience);
                let seen = scene.instance.workers(Instant::now() + patience).await?;
                if seen.len() >= workers {
                    return Ok(());
                }
                Err(Problem::failed(format!(
                    "expected   spans of {workers} worker processes, told apart by service.instance.id or process.pid\n\
                     received   spans of {}: {}\nwaited     {patience:?} on {}",
                    seen.len(),
                    some_of(seen.iter().map(String::as_str)),
                    scene.stage.spec.name
                )))
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "all telemetry of the request arrived before the freeze",
        about: "No span and no log record of the request came only after the environment was thawed, and none that a line of \
                the request names is missing. Sends one more request to thaw the environment. An exported record that nothing names and that \
                never comes is not missed here: “the log lines and the exported log records agree” finds it.",
        example: "Then all telemetry of the request arrived before the freeze",
        need: Need::Own,
        run: |world, _| Box::pin(async { world.scene()?.nothing_after_the_freeze().await }),
    },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Cold,
    Warm,
}

/// The Lambda side of a stimulus; a service has none, and an event that the gateway refused neither.
fn invocation(sent: &Sent) -> Result<&Invocation, Problem> {
    let Sent { delivery, .. } = sent;
    delivery.invocation.as_ref().ok_or_else(|| {
        Problem::errored(format!(
            "{} {} invoked no function: it was answered with {}",
            delivery.method, delivery.target, delivery.response.status
        ))
    })
}

fn start_was(invocation: &Invocation, expected: Start) -> StepResult {
    match (invocation.cold_start, expected) {
        (true, Start::Cold) | (false, Start::Warm) => Ok(()),
        (false, Start::Cold) => Err(Problem::failed("expected   a cold start\nreceived   a warm one")),
        (true, Start::Warm) => Err(Problem::failed(format!(
            "expected   a warm start\nreceived   a cold one: the first invocation of {}",
            invocation.environment
        ))),
    }
}

/// Whether two invocations, counted from 1, were in one environment, as expected.
fn together(sent: &[Sent], one: usize, other: usize, expected: bool) -> StepResult {
    let numbered = |number: usize| {
        let found = number.checked_sub(1).and_then(|at| sent.get(at));
        let found = found.ok_or_else(|| {
            Problem::errored(format!(
                "there is no invocation {number}; the scenario sent {}, counted from 1",
                sent.len()
            ))
        })?;
        invocation(found)
    };
    let (first, second) = (numbered(one)?, numbered(other)?);
    if one == other {
        return Err(Problem::errored(format!("{one} and {other} are the same invocation")));
    }
    if (first.environment == second.environment) == expected {
        return Ok(());
    }
    let expected = if expected { "one execution environment" } else { "different execution environments" };
    let named = |number: usize, invocation: &Invocation| {
        let start = if invocation.cold_start { "cold" } else { "warm" };
        format!("received   invocation {number} in {} ({start})", invocation.environment)
    };
    Err(Problem::failed(format!("expected   {expected}\n{}\n{}", named(one, first), named(other, second))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{correlation::samples, report::ProblemKind};

    fn sent(environment: &str, cold_start: bool) -> Sent {
        let invocation = Invocation { environment: environment.into(), cold_start, ..samples::invocation("id") };
        Sent::new(crate::stimulus::Delivery { invocation: Some(invocation), ..samples::delivery() })
    }

    fn kind(result: StepResult) -> Option<ProblemKind> {
        result.err().map(|problem| problem.kind)
    }

    #[test]
    fn a_start_is_cold_or_warm_and_the_other_is_rejected() {
        let (cold, warm) = (sent("a", true), sent("a", false));
        let judge = |sent: &Sent, expected| kind(start_was(invocation(sent).unwrap(), expected));
        assert_eq!((judge(&cold, Start::Cold), judge(&warm, Start::Warm)), (None, None));
        assert_eq!(judge(&warm, Start::Cold), Some(ProblemKind::Failed));
        assert_eq!(judge(&cold, Start::Warm), Some(ProblemKind::Failed));
    }

    #[test]
    fn what_invoked_no_function_has_no_start() {
        let refused = Sent::new(samples::delivery());
        assert_eq!(invocation(&refused).unwrap_err().kind, ProblemKind::Errored);
    }

    #[test]
    fn two_invocations_are_in_one_environment_or_in_two() {
        let all = [sent("a", true), sent("a", false), sent("b", true)];
        assert_eq!(kind(together(&all, 1, 2, true)), None);
        assert_eq!(kind(together(&all, 2, 3, false)), None);
        assert_eq!(kind(together(&all, 1, 2, false)), Some(ProblemKind::Failed));
        let apart = together(&all, 2, 3, true).unwrap_err();
        assert_eq!(apart.kind, ProblemKind::Failed);
        assert!(apart.message.contains("invocation 3 in b (cold)"), "{}", apart.message);
        for (one, other) in [(0, 1), (1, 4), (2, 2)] {
            assert_eq!(kind(together(&all, one, other, true)), Some(ProblemKind::Errored), "{one} {other}");
        }
    }
}
