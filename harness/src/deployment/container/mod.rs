//! Containers, by testcontainers: a private network, images without a registry, a neighbour that relays.
