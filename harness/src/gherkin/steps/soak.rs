//! Steps about very many requests.

use super::super::registry::{Keyword, Need, StepDefinition};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::When,
        expression: "{int} clients send {int} requests {method} {target}, each with its own trace",
        about: "Altogether so many, each client one after the other, as fast as the service answers. Steps that speak of the \
                request speak of the last one, which is sent when all others were answered.",
        example: "When 8 clients send 500 requests GET /healthcheck, each with its own trace",
        need: Need::Own,
        run: |world, arguments| {
            Box::pin(async {
                let (clients, count) = (arguments.number(0)?, arguments.number(1)?);
                world.scene()?.soak(clients, count, arguments.text(2), arguments.text(3)).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "each request of the soak has a complete, correlated trace",
        about: "Every one of them: one span hangs on the caller's span and all others on that, none is an orphan, came twice, hangs in \
                a circle or ends before it starts; every structured line and log record of the trace names a span of it \
                and quotes no other request; no line quotes a request's User-Agent without ids; and none has what \
                another one lacks, held against the last one, which is alone. What a few left less of than most is advice (`all-alike`). A failure counts the \
                requests by what is wrong and names the first five.",
        example: "Then each request of the soak has a complete, correlated trace",
        need: Need::Own,
        run: |world, _| Box::pin(async { world.scene()?.each_is_complete().await }),
    },
];
