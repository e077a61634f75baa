//! Who may ask: who is on this machine or in its private network, has called it by a name of these, and knows the token.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{
    StatusCode,
    header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
};

use crate::capture::{Token, sink::peer};

/// Lets a request through to the next, or says why not.
pub async fn guard(State(token): State<Arc<Token>>, request: Request, next: Next) -> Response {
    match refusal(&token, &request) {
        None => next.run(request).await,
        Some((StatusCode::UNAUTHORIZED, why)) => {
            (StatusCode::UNAUTHORIZED, [(WWW_AUTHENTICATE, "Bearer")], why).into_response()
        }
        Some((status, why)) => (status, why).into_response(),
    }
}

fn refusal(token: &Token, request: &Request) -> Option<(StatusCode, &'static str)> {
    if !peer(request).is_some_and(|peer| is_near(peer.ip())) {
        return Some((StatusCode::FORBIDDEN, "queries are answered to this machine and its private network only\n"));
    }
    // A page of elsewhere whose name was made to point here (DNS rebinding) sends that name.
    let host = request.uri().host().or_else(|| request.headers().get(HOST)?.to_str().ok());
    if !host.is_some_and(names_us) {
        let why = "queries are answered under a private address, localhost, or a name without a dot\n";
        return Some((StatusCode::FORBIDDEN, why));
    }
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    if !given.is_some_and(|(_, given)| token.is(given.trim())) {
        let why = "send the token that was printed at the start as Authorization: Bearer TOKEN\n";
        return Some((StatusCode::UNAUTHORIZED, why));
    }
    None
}

/// Whether an address is of this machine or of a private network (RFC 1918, RFC 4193, link-local).
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local(),
    }
}

/// Whether the host of a URL can only be meant for a machine that is near: nobody can register a name without a dot.
fn names_us(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse() {
        Ok(address) => is_near(address),
        Err(_) => !name.is_empty() && (!name.contains(['.', ':']) || name.to_ascii_lowercase().ends_with(".localhost")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_of_private_networks_are_near() {
        for near in [
            "127.0.0.1",
            "10.1.2.3",
            "172.17.0.2",
            "192.168.0.1",
            "169.254.1.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
        for far in ["8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
    }

    #[test]
    fn a_name_that_somebody_elsewhere_can_register_is_none_of_ours() {
        for ours in
            ["localhost", "localhost:4318", "127.0.0.1:4318", "[::1]:4318", "sink:4318", "a.localhost", "192.168.1.5"]
        {
            assert!(names_us(ours), "{ours}");
        }
        for foreign in
            ["evil.example", "evil.example:4318", "localhost.evil.example", "8.8.8.8", "[2001:db8::1]:80", "", ":4318"]
        {
            assert!(!names_us(foreign), "{foreign}");
        }
    }
}
