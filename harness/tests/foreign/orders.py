"""A FastAPI application behind Mangum, with the OpenTelemetry SDK as its documentation sets it up for Lambda.

What differs between a sound function and a broken one is in the handler's module: sound.py beside unflushed.py,
tardy.py and deaf.py.
"""

import logging

from fastapi import FastAPI, HTTPException
from mangum import Mangum
from opentelemetry import metrics, trace
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

tracer_provider = TracerProvider()
tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(tracer_provider)

metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))

logger_provider = LoggerProvider()
logger_provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
set_logger_provider(logger_provider)

# Puts the ids into what awslambdaric writes to stdout, and exports the same records.
LoggingInstrumentor().instrument()

log = logging.getLogger("orders")
tracer = trace.get_tracer("orders")
app = FastAPI()


@app.get("/orders/{number}")
def order(number: int):
    with tracer.start_as_current_span("read order", attributes={"order.number": number}):
        if number > 100:
            log.error("no such order: %s", number)
            raise HTTPException(status_code=404)
        log.info("order read: %s", number)
    return {"number": number}


FastAPIInstrumentor.instrument_app(app)
application = Mangum(app, lifespan="off")
