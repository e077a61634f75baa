"""As it should be: the invocation has a span under the runtime's header, and all is flushed before the response."""

from opentelemetry.instrumentation.aws_lambda import AwsLambdaInstrumentor

import orders


def handler(event, context):
    try:
        return orders.application(event, context)
    finally:
        # The instrumentation of Lambda flushes spans and metrics, and leaves log records to whoever exports them.
        orders.logger_provider.force_flush()


AwsLambdaInstrumentor().instrument()
