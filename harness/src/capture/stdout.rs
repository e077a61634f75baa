//! The stdout tap: lines become log records.
