"""The application alone is instrumented, as for a server: nothing flushes the batch before the environment freezes."""

import orders


def handler(event, context):
    return orders.application(event, context)
