//! What a scenario expects of spans, log records and metrics, and what differs when it is not met.
