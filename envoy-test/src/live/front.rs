//! What stands in front of the servers: an Envoy, another gateway, or an endpoint picker with its Envoy.

use std::net::SocketAddr;

use anyhow::Result;

use super::column::{Column, WORKERS, health_check_interval};
use crate::endpoint_picker::{EndpointPicker, RunningPicker, Surroundings};
use crate::envoy::Envoy;
use crate::peer::{Peer, RunningPeer};

/// Who is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    Envoy(Column),
    Peer(Peer),
    EndpointPicker(EndpointPicker),
}

/// Dropping it ends it.
pub enum RunningFront {
    Envoy(Box<Envoy>),
    Peer(Box<RunningPeer>),
    EndpointPicker(Box<RunningPicker>),
}

impl Front {
    pub fn name(&self) -> &'static str {
        match self {
            Front::Envoy(column) => column.name(),
            Front::Peer(peer) => peer.name,
            Front::EndpointPicker(picker) => picker.schedule.name(),
        }
    }

    /// Where an Envoy does.
    pub fn column(&self) -> Option<Column> {
        match self {
            Front::Envoy(column) => Some(*column),
            Front::Peer(_) | Front::EndpointPicker(_) => None,
        }
    }

    /// Whether it reads the pods' metrics itself.
    pub fn scrapes(&self) -> bool {
        match self {
            Front::Envoy(column) => column.is_plugin(),
            Front::Peer(_) => false,
            Front::EndpointPicker(_) => true,
        }
    }

    /// Starts it in front of these pods; if `checks_health`, an Envoy asks them itself whether they are there, as all peers do,
    /// and an endpoint picker is told.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(&self, pods: &[SocketAddr], speed: f64, checks_health: bool) -> Result<RunningFront> {
        Ok(match self {
            Front::Envoy(column) => {
                RunningFront::Envoy(Box::new(column.start_envoy(pods, speed, checks_health)?))
            }
            Front::Peer(peer) => RunningFront::Peer(Box::new(peer.start(pods)?)),
            Front::EndpointPicker(picker) => {
                let readiness_interval = checks_health.then(|| health_check_interval(speed));
                let surroundings = Surroundings { speed, workers: WORKERS, readiness_interval };
                RunningFront::EndpointPicker(Box::new(picker.start(pods, surroundings)?))
            }
        })
    }
}

impl RunningFront {
    pub fn address(&self) -> SocketAddr {
        match self {
            RunningFront::Envoy(envoy) => envoy.address(),
            RunningFront::Peer(peer) => peer.address(),
            RunningFront::EndpointPicker(picker) => picker.address(),
        }
    }
}
