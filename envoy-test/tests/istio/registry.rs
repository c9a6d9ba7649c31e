//! A registry of images, on the loopback interface.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use envoy_test::envoy::free_address;

use crate::gateway::until;
use crate::programs::{program, run};

/// Ends when it is dropped.
pub struct Registry {
    address: SocketAddr,
    child: Child,
}

impl Registry {
    pub fn start() -> Registry {
        let address = free_address().unwrap();
        let child = program("crane")
            .args(["registry", "serve", "--address", &address.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { address, child };
        until("the registry serves", || TcpStream::connect(address).is_ok());
        registry
    }

    /// Pushes an OCI image layout, and returns the image's name.
    pub fn push(&self, layout: &Path, name: &str) -> String {
        let name = format!("{}/{name}", self.address);
        run(program("crane").arg("push").arg(layout).arg(&name));
        name
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: then it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
