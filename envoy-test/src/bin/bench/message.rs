//! HTTP/1.1 messages on a connection that is kept, as cheap to read as can be: a message is its head, and a body of
//! the length that the head announces; or a stream, of which only the parts are counted. Not a general reader: no
//! pipelining, no trailers.

use std::io::{self, ErrorKind};

use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

/// Fits all but the largest messages measured; it grows for those.
const FIRST_BUFFER_BYTES: usize = 16 << 10;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const END_OF_STREAM: &[u8] = b"\r\n0\r\n\r\n";

pub struct MessageStream {
    stream: TcpStream,
    buffer: Vec<u8>,
}

pub struct Message<'a> {
    pub head: &'a str,
    pub body: &'a [u8],
}

impl MessageStream {
    pub fn new(stream: TcpStream) -> io::Result<MessageStream> {
        stream.set_nodelay(true)?;
        Ok(MessageStream { stream, buffer: vec![0; FIRST_BUFFER_BYTES] })
    }

    /// The next message; `None` if the peer has closed the connection instead.
    pub async fn next(&mut self) -> Result<Option<Message<'_>>> {
        let mut filled = 0;
        let (head_length, body_length) = loop {
            filled += match self.read(filled).await? {
                0 if filled == 0 => return Ok(None),
                0 => bail!("the connection was closed within a message"),
                count => count,
            };
            if let Some(lengths) = lengths(&self.buffer[..filled])? {
                break lengths;
            }
        };
        let length = head_length + body_length;
        while filled < length {
            match self.read(filled).await? {
                0 => bail!("the connection was closed within a body"),
                count => filled += count,
            }
        }
        if filled > length {
            bail!("a message came before the one before it was answered");
        }
        let (head, body) = self.buffer[..length].split_at(head_length);
        Ok(Some(Message { head: std::str::from_utf8(head)?, body }))
    }

    /// Reads a whole stream; returns in how many parts its body came, by the chunks in which Envoy sent it on.
    pub async fn next_stream(&mut self) -> Result<usize> {
        let mut filled = 0;
        while !self.buffer[..filled].ends_with(END_OF_STREAM) {
            filled += match self.read(filled).await? {
                0 => bail!("the connection was closed within a stream"),
                count => count,
            };
        }
        let stream = &self.buffer[..filled];
        if !stream.starts_with(b"HTTP/1.1 200 ") {
            bail!("not the stream expected: {}", String::from_utf8_lossy(stream));
        }
        let end = stream.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD);
        parts(&stream[end.context("no head")? + END_OF_HEAD.len()..])
    }

    pub async fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(&mut self, filled: usize) -> io::Result<usize> {
        if filled == self.buffer.len() {
            self.buffer.resize(filled * 2, 0);
        }
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.buffer[filled..]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

impl<'a> Message<'a> {
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }
}

/// How many chunks a body has that is sent in chunks.
fn parts(mut body: &[u8]) -> Result<usize> {
    let mut count = 0;
    loop {
        let end = body.iter().position(|byte| *byte == b'\r').context("a chunk without a length")?;
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end])?, 16)?;
        if length == 0 {
            return Ok(count);
        }
        body = body.get(end + length + 4..).context("a chunk that ends too early")?;
        count += 1;
    }
}

/// The lengths of the head and of the body; `None` if the head is not all here.
fn lengths(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    if header(head, "transfer-encoding").is_some() {
        bail!("a message without a length: {head}");
    }
    let length = header(head, "content-length").map(str::parse).transpose().context(head.to_owned())?;
    Ok(Some((end + END_OF_HEAD.len(), length.unwrap_or(0))))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim_ascii())
    })
}
