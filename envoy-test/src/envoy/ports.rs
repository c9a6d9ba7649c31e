//! Chooses the ports that Envoy, and what is started beside it, listens on.

use anyhow::{Result, bail};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the ports that systems hand out by themselves (Linux from 32768), so that no server or connection of
/// another test gets one between its choice and Envoy's start. Envoy would not always notice: it shares its ports.
const PORTS: Range<u16> = 12_000..32_000;

static CHOSEN_COUNT: AtomicU32 = AtomicU32::new(0);

/// An address of 127.0.0.1 that nothing listens on and that this program has not chosen before.
pub fn free_address() -> Result<SocketAddr> {
    for _ in PORTS {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, next_port()));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

/// Goes through the ports in order, from a place that differs between programs.
fn next_port() -> u16 {
    let range_length = u32::from(PORTS.end - PORTS.start);
    let first = process::id().wrapping_mul(97) % range_length;
    let index = (first + CHOSEN_COUNT.fetch_add(1, Ordering::Relaxed)) % range_length;
    PORTS.start + index as u16
}
