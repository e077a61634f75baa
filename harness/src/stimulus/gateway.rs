//! Gateways in front of a function: each builds events from plain HTTP requests and takes responses apart.
