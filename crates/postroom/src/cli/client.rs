//! A small HTTP/1.1 client over keep-alive connections, for the subcommands that call a running service.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where to connect: an `http://` URL, parsed once.
#[derive(Debug, Clone)]
pub struct Target {
    host: String,
    port: u16,
    authority: HeaderValue,
    path: String,
}

impl Target {
    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Parses a URL; `default_path` replaces a missing path.
    pub fn parse(url: &str, default_path: &str) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("'{url}' is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                bail!("https is not supported: use the URL of the service itself (http://…:8000), behind the proxy")
            }
            _ => bail!("'{url}' must begin with http://"),
        }
        let authority = uri.authority().with_context(|| format!("'{url}' names no host"))?;
        let after_user = authority.as_str().rsplit('@').next().unwrap_or_default();
        let port = match after_user[authority.host().len()..].trim_start_matches(':') {
            "" => 80,
            port => port.parse().ok().with_context(|| format!("'{url}' has the invalid port {port}"))?,
        };
        let path = match uri.path() {
            "/" => default_path,
            path => path,
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port,
            authority: HeaderValue::from_str(authority.as_str())?,
            path: format!("{path}{query}"),
        })
    }
}

/// A response, with the relevant headers.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// Seconds to wait before a retry, if the service sends them.
    pub retry_after_seconds: Option<u64>,
    /// The whole body.
    pub body: Bytes,
}

/// One connection, opened on first use and again after a failure.
#[derive(Debug)]
pub struct Client {
    target: Target,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that is not connected yet.
    pub fn new(target: Target) -> Self {
        Self { target, connection: None }
    }

    /// Sends a request and reads the whole response. After an error the connection is closed, and the next call opens a
    /// new one; whether the service saw the request is unknown.
    pub async fn request(&mut self, method: &str, headers: HeaderMap, body: Bytes) -> anyhow::Result<Reply> {
        let mut request = Request::builder().method(method).uri(self.target.path.as_str()).body(Full::new(body))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, self.target.authority.clone());
        let mut connection = match self.connection.take().filter(|connection| !connection.is_closed()) {
            Some(connection) => connection,
            None => connect(&self.target).await?,
        };
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        self.connection = Some(connection);
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Reply { status: head.status, retry_after_seconds: retry_after, body })
    }
}

async fn connect(target: &Target) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await;
    let stream = stream.with_context(|| format!("cannot connect to {}:{}", target.host, target.port))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // The task ends with the connection. The request reports errors of the connection.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let target = Target::parse("http://localhost:8000", "/webhook").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("localhost", 8000, "/webhook"));
        let target = Target::parse("http://[::1]/x?y=z", "/webhook").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("::1", 80, "/x?y=z"));
        let target = Target::parse("http://8000:8000?y=z", "/webhook").unwrap();
        assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("8000", 8000, "/webhook?y=z"));
        for bad in ["localhost:8000", "https://a/", "ftp://a", "http://", "not a url", "http://a:65536", "http://a:b"] {
            assert!(Target::parse(bad, "/").is_err(), "{bad}");
        }
    }
}
