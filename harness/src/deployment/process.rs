//! Processes of this machine, each in a process group of its own.
