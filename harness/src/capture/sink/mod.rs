//! The OTLP sink: one port for gRPC and HTTP, protobuf and JSON, gzip and zstd.
