//! What stands between Envoy and its own admin, so that the plugin can lose it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// A way to Envoy's admin that can be cut. It ends with the process.
pub struct WayToAdmin {
    address: SocketAddr,
    ends: Arc<Mutex<Ends>>,
}

#[derive(Default)]
struct Ends {
    /// Where it leads; `None`: it is cut.
    admin: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

impl WayToAdmin {
    /// One that leads nowhere yet.
    pub fn new() -> Result<WayToAdmin> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let way = WayToAdmin { address: listener.local_addr()?, ends: Arc::default() };
        let ends = way.ends.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A connection that cannot be led on is closed.
                let _ = lock(&ends).lead(client);
            }
        });
        Ok(way)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn lead_to(&self, admin: SocketAddr) {
        lock(&self.ends).admin = Some(admin);
    }

    pub fn cut(&self) {
        let mut ends = lock(&self.ends);
        ends.admin = None;
        for stream in ends.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Ends {
    fn lead(&mut self, client: TcpStream) -> Result<()> {
        let server = TcpStream::connect(self.admin.context("it is cut")?)?;
        self.open.extend([client.try_clone()?, server.try_clone()?]);
        copy(client.try_clone()?, server.try_clone()?);
        copy(server, client);
        Ok(())
    }
}

fn lock(ends: &Mutex<Ends>) -> MutexGuard<'_, Ends> {
    ends.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until one of them ends.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
