//! Where requests are sent: a gateway of ours or somebody else's.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context, Result, bail};
use hyper::Uri;

use crate::envoy::{Client, Protocol, Request};

const DEFAULT_PORT: u16 = 80;

/// A place that answers `/v1/completions`.
#[derive(Debug, Clone)]
pub struct Gateway {
    address: SocketAddr,
    /// As the address says it: a gateway may distinguish its hosts.
    host: String,
    /// What stands before `/v1`.
    path: String,
}

impl Gateway {
    pub fn at(address: SocketAddr) -> Gateway {
        Gateway { address, host: address.to_string(), path: String::new() }
    }

    /// `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// Anything else, and a name that is not known.
    pub fn parse(url: &str) -> Result<Gateway> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no address"))?;
        let (Some("http"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            bail!("{url} is not http://HOST[:PORT][/PATH]");
        };
        let port = authority.port_u16().unwrap_or(DEFAULT_PORT);
        let mut found = (authority.host().trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .with_context(|| format!("looking up {url}"))?;
        let address = found.next().with_context(|| format!("nobody is at {url}"))?;
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Gateway { address, host: authority.to_string(), path })
    }

    pub fn client(&self) -> Client {
        Client::new(self.address, Protocol::Http1)
    }

    /// A request to the path behind the gateway's own.
    pub fn post(&self, path: &str) -> Request {
        Request::post(&format!("{}{path}", self.path)).header("host", &self.host)
    }

    /// The first model that it says it has.
    ///
    /// # Errors
    /// It says none.
    pub fn first_model(&self) -> Result<String> {
        let request = Request::get(&format!("{}/v1/models", self.path)).header("host", &self.host);
        let answer = self.client().send_blocking(request).context("asking for the models")?.json()?;
        let id = answer["data"][0]["id"].as_str();
        Ok(id.context("the gateway names no model; say which with MODEL=")?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_perhaps_a_port_and_perhaps_a_path() {
        let gateway = Gateway::parse("http://127.0.0.1:8080/llm/").unwrap();
        assert_eq!((gateway.address.to_string().as_str(), gateway.path.as_str()), ("127.0.0.1:8080", "/llm"));
        assert_eq!(Gateway::parse("http://127.0.0.1").unwrap().address.port(), DEFAULT_PORT);
        for wrong in ["127.0.0.1:8080", "https://127.0.0.1", "", "http://"] {
            assert!(Gateway::parse(wrong).is_err(), "{wrong}");
        }
    }
}
