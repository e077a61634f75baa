//! Profiles: the signal is in development, so a request is kept as it was sent, and only counted.

use prost::{DecodeError, Message};

// opentelemetry.proto.collector.profiles.v1development, as far as it takes to count: everything else is skipped.

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_profiles: Vec<ResourceProfiles>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceProfiles {
    #[prost(message, repeated, tag = "2")]
    scope_profiles: Vec<ScopeProfiles>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeProfiles {
    #[prost(message, repeated, tag = "2")]
    profiles: Vec<Profile>,
}

#[derive(Clone, PartialEq, Message)]
struct Profile {}

/// How many profiles an `ExportProfilesServiceRequest` holds.
pub fn count(wire: &[u8]) -> Result<usize, DecodeError> {
    let export = Export::decode(wire)?;
    let scopes = export.resource_profiles.iter().flat_map(|resource| &resource.scope_profiles);
    Ok(scopes.map(|scope| scope.profiles.len()).sum())
}
