//! Ports for services: chosen below the range that the kernel gives to outgoing connections, so that no connection of
//! somebody else takes one between the choice and the service's own bind.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

use crate::deployment::SiteError;

/// Below 32768, where Linux's ephemeral range begins by default.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

static RESERVED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// The ports that this process has given out.
pub(super) struct Ports;

impl Ports {
    /// A port on which nobody listens and that no other deployment of this process has.
    pub(super) fn reserve() -> Result<u16, SiteError> {
        let mut reserved = RESERVED.lock().unwrap_or_else(PoisonError::into_inner);
        let size = RANGE.end - RANGE.start;
        // A random start keeps two harnesses on one machine apart.
        let start = rand::random_range(0..size);
        for step in 0..size {
            let port = RANGE.start + (start + step) % size;
            // Both, since a service may listen on every interface.
            let free = [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED]
                .into_iter()
                .all(|address| TcpListener::bind((address, port)).is_ok());
            if !reserved.contains(&port) && free {
                reserved.insert(port);
                return Ok(port);
            }
        }
        Err(SiteError::new(format!(
            "no free port between {} and {}: stop what listens there, or run fewer deployments at once",
            RANGE.start, RANGE.end
        )))
    }

    /// Gives a port back once its service is gone.
    pub(super) fn release(port: u16) {
        RESERVED.lock().unwrap_or_else(PoisonError::into_inner).remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_deployments_get_the_same_port() {
        let ports: Vec<u16> = (0..50).map(|_| Ports::reserve().unwrap()).collect();
        let distinct: BTreeSet<u16> = ports.iter().copied().collect();
        assert_eq!(distinct.len(), 50);
        assert!(ports.iter().all(|port| RANGE.contains(port)));
        ports.into_iter().for_each(Ports::release);
    }

    #[test]
    fn a_port_on_which_somebody_listens_is_not_given_out() {
        let port = Ports::reserve().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        Ports::release(port);
        let given: Vec<u16> = (0..200).map(|_| Ports::reserve().unwrap()).collect();
        assert!(!given.contains(&port));
        given.into_iter().for_each(Ports::release);
    }
}
