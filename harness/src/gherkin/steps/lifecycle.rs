//! Steps about the life of what runs: cold starts, shutdown, workers, the freeze.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::super::registry::{Keyword, Need, StepDefinition};
use crate::{capture::Mark, report::Problem};

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
                world.scene()?.instance.recycle().await;
                Ok(())
            })
        },
    },
    StepDefinition {
        keyword: Keyword::When,
        expression: "the service is stopped with {signal}",
        about: "The signal is sent to the process group or the container; what the service exports on its way out still \
                counts. It is killed after 10 s.",
        example: "When the service is stopped with SIGTERM",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let signal = if arguments.text(0) == "SIGINT" { Signal::SIGINT } else { Signal::SIGTERM };
                let instance = world.scene()?.instance.clone();
                instance.store().mark(Mark::StopRequested { signal: signal.to_string() });
                let exit = instance.stop(signal, GRACE).await;
                if exit.orderly {
                    Ok(())
                } else {
                    let signal = arguments.text(0);
                    Err(Problem::failed(format!(
                        "expected   the service ends within 10 s of {signal}\nreceived   {}",
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
        run: |world, _| {
            Box::pin(async {
                match &world.scene()?.last()?.delivery.invocation {
                    Some(invocation) if invocation.cold_start => Ok(()),
                    Some(_) => Err(Problem::failed("expected   a cold start\nreceived   a warm one")),
                    None => Err(Problem::errored("this deployment is no function")),
                }
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "every worker process exports spans",
        about: "As many worker processes as the deployment's `workers` show themselves, each by a `service.instance.id` or a \
                `process.pid` of its own in the resource of its spans. Requests are sent until they have, or `patience` is over.",
        example: "Then every worker process exports spans",
        need: Need::Shared,
        run: |world, _| {
            Box::pin(async {
                let scene = world.scene()?;
                let (workers, patience) = (scene.stage.spec.workers, scene.stage.spec.patience);
                let seen = scene.instance.wake_workers(Instant::now() + patience).await?;
                if seen.len() >= workers {
                    return Ok(());
                }
                let named: Vec<&str> = seen.iter().map(String::as_str).collect();
                Err(Problem::failed(format!(
                    "expected   spans of {workers} worker processes, told apart by service.instance.id or process.pid\n\
                     received   spans of {}: {}\nwaited     {patience:?} on {}",
                    seen.len(),
                    named.join(", "),
                    scene.stage.spec.name
                )))
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "all telemetry of the request arrived before the freeze",
        about: "No span and no log record of the request came only after the environment was thawed, and none that a line of \
                the request names is missing. Sends one more request to thaw the environment.",
        example: "Then all telemetry of the request arrived before the freeze",
        need: Need::Own,
        run: |world, _| Box::pin(async { world.scene()?.nothing_after_the_freeze().await }),
    },
];
