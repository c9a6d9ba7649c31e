//! A client that sends when a request is due, whatever has become of those before it: requests come at random times at a
//! given rate, each on a connection that is free. How long one took counts from when it was due, so a gateway that is slow
//! for a moment pays for all that would have come meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;

use crate::model_servers::ANSWER;

/// More than are in flight at once at half load. Should there be no more than half, requests wait for a free one.
const CONNECTIONS_MAX: usize = 200;
/// Until the answers behind the last request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Larger than an answer.
const BUFFER_BYTES: usize = 4 << 10;

pub struct OpenLoop {
    address: SocketAddr,
    connections: Vec<Connection>,
    /// Places of connections on which nothing is awaited.
    free: Vec<usize>,
    took: Vec<Duration>,
}

struct Connection {
    stream: TcpStream,
    /// When the request in flight was due.
    due: Option<Instant>,
    answer: Vec<u8>,
}

impl OpenLoop {
    /// To the gateway at this address. The thread wakes up when it asks to, from now on.
    pub fn new(address: SocketAddr) -> Result<OpenLoop> {
        set_current_timer_slack(NonZeroU64::new(1))?;
        Ok(OpenLoop { address, connections: Vec::new(), free: Vec::new(), took: Vec::new() })
    }

    /// Sends for so long, and returns how long each request took.
    pub fn send(
        &mut self,
        request: &[u8],
        rate_per_s: f64,
        lasts: Duration,
        rng: &mut Rng,
    ) -> Result<Vec<Duration>> {
        let mut due = Instant::now();
        let ends = due + lasts;
        loop {
            let now = Instant::now();
            while due <= now && due < ends && self.has_room() {
                self.start(request, due)?;
                due += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / rate_per_s);
            }
            if due >= ends && self.free.len() == self.connections.len() {
                return Ok(std::mem::take(&mut self.took));
            }
            let until = if due < ends && self.has_room() { due } else { now + PATIENCE };
            self.read_answers(until.saturating_duration_since(Instant::now()))?;
            ensure!(now < ends + PATIENCE, "requests were not answered within {PATIENCE:?}");
        }
    }

    fn start(&mut self, request: &[u8], due: Instant) -> Result<()> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => self.connect()?,
        };
        let connection = &mut self.connections[place];
        connection.due = Some(due);
        Ok(connection.stream.write_all(request)?)
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() || self.connections.len() < CONNECTIONS_MAX
    }

    fn connect(&mut self) -> Result<usize> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        self.connections.push(Connection { stream, due: None, answer: Vec::with_capacity(BUFFER_BYTES) });
        Ok(self.connections.len() - 1)
    }

    /// Waits for answers, and reads what has come.
    fn read_answers(&mut self, wait: Duration) -> Result<()> {
        let awaited: Vec<usize> =
            (0..self.connections.len()).filter(|&place| self.connections[place].due.is_some()).collect();
        let streams = awaited.iter().map(|&place| &self.connections[place].stream);
        let mut polled: Vec<_> = streams.map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        poll(&mut polled, Some(&Timespec::try_from(wait)?))?;
        let ready: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        for (place, _) in awaited.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Some(took) = self.connections[place].read()? {
                self.took.push(took);
                self.free.push(place);
            }
        }
        Ok(())
    }
}

impl Connection {
    /// Reads what is there; how long the request took, if that is the rest of its answer.
    fn read(&mut self) -> Result<Option<Duration>> {
        let mut buffer = [0; BUFFER_BYTES];
        let count = self.stream.read(&mut buffer)?;
        ensure!(count > 0, "Envoy closed the connection");
        self.answer.extend(&buffer[..count]);
        if !self.answer.ends_with(ANSWER.as_bytes()) {
            return Ok(None);
        }
        let is_right = self.answer.starts_with(b"HTTP/1.1 200 ");
        ensure!(is_right, "not the answer expected: {}", String::from_utf8_lossy(&self.answer));
        self.answer.clear();
        Ok(self.due.take().map(|due| due.elapsed()))
    }
}
