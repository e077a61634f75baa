//! Lambda: the Runtime API and the life of an execution environment.
