//! The relay between a private container network and this process.
