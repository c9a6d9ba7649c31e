//! A TCP connection for what no HTTP client would send: halves of requests, malformed ones, `Expect: 100-continue`.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::ANSWER_LIMIT;

/// An answer longer than this is a mistake of the test.
const ANSWER_BYTES_MAX: usize = 1 << 20;
const READ_BYTES: usize = 4096;

pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self { stream })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.stream.write_all(bytes.as_ref())?)
    }

    /// Shows the server that nothing more will be sent; its answer can still be read.
    pub fn finish_sending(&mut self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Reads until `end` was read, and returns all that came up to then. A connection that closes before is an error.
    pub fn read_until(&mut self, end: &str) -> Result<String> {
        let mut text = String::new();
        while !text.contains(end) {
            match self.read_some()? {
                Some(more) => text.push_str(&more),
                None => bail!("the connection closed before {end:?}, after {text:?}"),
            }
            check_length(&text)?;
        }
        Ok(text)
    }

    /// Reads until the server closes the connection.
    pub fn read_to_end(&mut self) -> Result<String> {
        let mut text = String::new();
        while let Some(more) = self.read_some()? {
            text.push_str(&more);
            check_length(&text)?;
        }
        Ok(text)
    }

    fn read_some(&mut self) -> Result<Option<String>> {
        let mut buffer = [0; READ_BYTES];
        let count = self.stream.read(&mut buffer).context("waiting for an answer")?;
        let bytes = buffer.get(..count).unwrap_or_default();
        Ok((count > 0).then(|| String::from_utf8_lossy(bytes).into_owned()))
    }
}

fn check_length(text: &str) -> Result<()> {
    if text.len() > ANSWER_BYTES_MAX {
        bail!("the answer is longer than {ANSWER_BYTES_MAX} bytes");
    }
    Ok(())
}
