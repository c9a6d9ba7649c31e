//! The pages of the last seconds.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use envoy_test::envoy::{Client, Protocol, Request};
use envoy_test::statistics::{ADMIN_PATH, Overview, Page};

pub struct Window {
    admin: SocketAddr,
    length: Duration,
    pages: VecDeque<(Instant, Page)>,
}

impl Window {
    pub fn new(admin: SocketAddr, length: Duration) -> Window {
        Window { admin, length, pages: VecDeque::new() }
    }

    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    pub fn length(&self) -> Duration {
        self.length
    }

    /// Reads the next page, and forgets those that are older than the window, but for one at its edge.
    pub fn read(&mut self) -> Result<()> {
        let answer = Client::new(self.admin, Protocol::Http1)
            .send_blocking(Request::get(ADMIN_PATH))
            .with_context(|| format!("reading the statistics of http://{}", self.admin))?;
        ensure!(answer.status == 200, "http://{} answered {} to {ADMIN_PATH}", self.admin, answer.status);
        let now = Instant::now();
        self.pages.push_back((now, Page::parse(&answer.text())));
        while self.pages.get(1).is_some_and(|(read_at, _)| now - *read_at >= self.length) {
            self.pages.pop_front();
        }
        Ok(())
    }

    /// True where the last page has nothing of the plugin.
    pub fn is_empty(&self) -> bool {
        self.pages.back().is_none_or(|(_, page)| page.is_empty())
    }

    /// What happened in the window, and how long it is so far.
    pub fn overview(&self) -> (Overview, Duration) {
        let empty = (Instant::now(), Page::default());
        let (first_at, first) = self.pages.front().unwrap_or(&empty);
        let (last_at, last) = self.pages.back().unwrap_or(&empty);
        let elapsed = *last_at - *first_at;
        (Overview::between(first, last, elapsed), elapsed)
    }
}
