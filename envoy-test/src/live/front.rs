//! What stands in front of the servers: an Envoy, or another gateway.

use std::net::SocketAddr;

use anyhow::Result;

use super::column::Column;
use crate::envoy::Envoy;
use crate::peer::{Peer, RunningPeer};

/// Who is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Front {
    Envoy(Column),
    Peer(Peer),
}

/// Dropping it ends it.
pub enum RunningFront {
    Envoy(Box<Envoy>),
    Peer(Box<RunningPeer>),
}

impl Front {
    pub fn name(self) -> &'static str {
        match self {
            Front::Envoy(column) => column.name(),
            Front::Peer(peer) => peer.name,
        }
    }

    /// Where an Envoy does.
    pub fn column(self) -> Option<Column> {
        match self {
            Front::Envoy(column) => Some(column),
            Front::Peer(_) => None,
        }
    }

    /// Starts it in front of these pods; an Envoy asks them itself whether they are there if `checks_health`, as all peers do.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(self, pods: &[SocketAddr], speed: f64, checks_health: bool) -> Result<RunningFront> {
        Ok(match self {
            Front::Envoy(column) => {
                RunningFront::Envoy(Box::new(column.start_envoy(pods, speed, checks_health)?))
            }
            Front::Peer(peer) => RunningFront::Peer(Box::new(peer.start(pods)?)),
        })
    }
}

impl RunningFront {
    pub fn address(&self) -> SocketAddr {
        match self {
            RunningFront::Envoy(envoy) => envoy.address(),
            RunningFront::Peer(peer) => peer.address(),
        }
    }
}
