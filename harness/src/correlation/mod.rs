//! Which spans and log records belong to a stimulus, and whether they hang together.
