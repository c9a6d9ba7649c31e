//! HTTP/1.1 messages on a connection that is kept, as cheap to read as can be: a message is its head, and a body of
//! the length that the head announces, or in chunks; or a stream, of which only the parts are counted. Not a general reader:
//! no pipelining, no trailers, no line breaks in chunks.

use std::io::{self, ErrorKind};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::TcpStream;

/// Fits all but the largest messages measured; it grows for those.
const FIRST_BUFFER_BYTES: usize = 16 << 10;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const LINE_END: usize = b"\r\n".len();
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

pub struct MessageStream {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// A body that came in chunks, put together.
    joined: Vec<u8>,
}

pub struct Message<'a> {
    pub head: &'a str,
    pub body: &'a [u8],
}

impl MessageStream {
    pub fn new(stream: TcpStream) -> io::Result<MessageStream> {
        stream.set_nodelay(true)?;
        Ok(MessageStream { stream, buffer: vec![0; FIRST_BUFFER_BYTES], joined: Vec::new() })
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
        let Some(body_length) = body_length else {
            return self.rest_in_chunks(head_length, filled).await.map(Some);
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

    /// The message whose body comes in chunks, and of which so much is here.
    async fn rest_in_chunks(&mut self, head_length: usize, filled: usize) -> Result<Message<'_>> {
        let filled = self.read_to_last_chunk(filled).await?;
        let (head, mut body) = self.buffer[..filled].split_at(head_length);
        self.joined.clear();
        while !body.is_empty() {
            let (chunk, rest) = first_chunk(body)?;
            self.joined.extend_from_slice(chunk);
            body = rest;
        }
        Ok(Message { head: std::str::from_utf8(head)?, body: &self.joined })
    }

    /// Reads until the last chunk is here; returns how much that is.
    async fn read_to_last_chunk(&mut self, mut filled: usize) -> Result<usize> {
        while !self.buffer[..filled].ends_with(LAST_CHUNK) {
            filled += match self.read(filled).await? {
                0 => bail!("the connection was closed within a stream"),
                count => count,
            };
        }
        Ok(filled)
    }

    /// Reads a whole stream; returns in how many parts its body came, by the chunks in which Envoy sent it on.
    pub async fn next_stream(&mut self) -> Result<usize> {
        let filled = self.read_to_last_chunk(0).await?;
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

/// How many chunks a body has that is sent in chunks, without the last one, which is empty.
fn parts(mut body: &[u8]) -> Result<usize> {
    let mut count = 0;
    loop {
        let (chunk, rest) = first_chunk(body)?;
        if chunk.is_empty() {
            return Ok(count);
        }
        (body, count) = (rest, count + 1);
    }
}

/// The first chunk of these, and the others.
fn first_chunk(body: &[u8]) -> Result<(&[u8], &[u8])> {
    let end = body.iter().position(|byte| *byte == b'\r').context("a chunk without a length")?;
    let length = usize::from_str_radix(std::str::from_utf8(&body[..end])?, 16)?;
    let chunk = body.get(end + LINE_END..).and_then(|rest| rest.split_at_checked(length));
    let (chunk, rest) = chunk.context("a chunk that ends too early")?;
    Ok((chunk, rest.get(LINE_END..).context("a chunk without an end")?))
}

/// The lengths of the head and of the body, which has none if it comes in chunks; `None` if the head is not all here.
fn lengths(bytes: &[u8]) -> Result<Option<(usize, Option<usize>)>> {
    let Some(end) = bytes.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    let body_length = match header(head, "transfer-encoding") {
        Some(encoding) => {
            ensure!(encoding == "chunked", "a message in an unknown encoding: {head}");
            None
        }
        None => {
            let length = header(head, "content-length").map(str::parse).transpose();
            Some(length.context(head.to_owned())?.unwrap_or(0))
        }
    };
    Ok(Some((end + END_OF_HEAD.len(), body_length)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then_some(value.trim_ascii())
    })
}
