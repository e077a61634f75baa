"""The invocation's span is made without looking at any header, so it begins a trace of its own."""

from opentelemetry.context import Context
from opentelemetry.instrumentation.aws_lambda import AwsLambdaInstrumentor

import orders


def handler(event, context):
    try:
        return orders.application(event, context)
    finally:
        orders.logger_provider.force_flush()


AwsLambdaInstrumentor().instrument(event_context_extractor=lambda event: Context())
