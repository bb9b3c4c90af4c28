//! A keep-alive connection with little overhead: it shares two cores with the measured server.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One connection, used for one request after another.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The position of the last response's body in the buffer.
    body: std::ops::Range<usize>,
}

impl Connection {
    /// Connects.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 4096], body: 0..0 })
    }

    /// Requests a path and returns the status.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<u16> {
        self.exchange(&super::get(path)).await
    }

    /// Sends a whole request, reads the whole response, and returns its status.
    pub async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<u16> {
        self.stream.write_all(request).await.context("the server closed the connection")?;
        let mut filled = 0;
        let (status, body) = loop {
            filled += self.read(filled).await?;
            if let Some(end) = memchr::memmem::find(&self.buffer[..filled], b"\r\n\r\n") {
                break read_head(&self.buffer[..end], end + 4)?;
            }
        };
        while filled < body.end {
            filled += self.read(filled).await?;
        }
        ensure!(filled == body.end, "the server sent more than one response");
        self.body = body;
        Ok(status)
    }

    /// The value of a sample of `/metrics`; none if the server has no such metric.
    pub async fn metric(&mut self, name: &str) -> anyhow::Result<Option<f64>> {
        match self.get("/metrics").await? {
            200 => {}
            404 => return Ok(None),
            status => bail!("/metrics returned {status}"),
        }
        let text = String::from_utf8_lossy(self.body());
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        Ok(text.lines().find_map(value))
    }

    /// The body of the last response.
    pub fn body(&self) -> &[u8] {
        &self.buffer[self.body.clone()]
    }

    async fn read(&mut self, filled: usize) -> anyhow::Result<usize> {
        if filled == self.buffer.len() {
            self.buffer.resize(filled * 2, 0);
        }
        match self.stream.read(&mut self.buffer[filled..]).await.context("the response is incomplete")? {
            0 => bail!("the server closed the connection before its response"),
            read => Ok(read),
        }
    }
}

/// Status, and the position of the body after the head.
fn read_head(head: &[u8], body_start: usize) -> anyhow::Result<(u16, std::ops::Range<usize>)> {
    const LENGTH: &[u8] = b"content-length:";
    let text =
        |bytes: Option<&[u8]>| std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default().trim().to_owned();
    let status = text(head.get(9..12)).parse().context("the response has no status")?;
    let is_length = |line: &&[u8]| line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH);
    let length = head.split(|byte| *byte == b'\n').find(is_length).map(|line| &line[LENGTH.len()..]);
    let length: usize = text(length).parse().context("the response has no length")?;
    Ok((status, body_start..body_start + length))
}
