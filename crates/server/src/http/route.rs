//! A row of the route table. There are no defaults: a row without one of the fields does not compile.

use std::pin::Pin;

use hyper::Method;
use hyper::header::HeaderMap;
use utoipa::openapi::OpenApi;

use super::error::ApiError;
use super::{Answer, AppState, ListenerRole};
use crate::config::Scope;

/// One endpoint: everything that the service knows of it.
#[derive(Debug)]
pub struct Route {
    /// Where it is.
    pub path: Path,
    /// The method that it takes. GET takes HEAD too, and OPTIONS is taken everywhere.
    pub method: Method,
    /// Who may call it.
    pub access: Access,
    /// At which listener it is.
    pub listener: Listener,
    /// Whether web pages of other origins may read it.
    pub cors: Cors,
    /// How much memory a response takes.
    pub cost: Cost,
    /// How long a response may be kept.
    pub cache: Cache,
    /// Its label in metrics. Rows may share one.
    pub label: &'static str,
    /// The function that makes the response.
    pub handler: Handler,
    /// Its entry in the OpenAPI document; none for files of a page. `documented!` makes it of a handler.
    pub operation: Option<fn() -> OpenApi>,
}

/// A path, without a slash at its end. One part in braces stands for any text that is not empty and does not begin with
/// a slash: an id may hold slashes.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// As it is written in documents.
    pub text: &'static str,
    /// All of it, or the part before the braces.
    head: &'static str,
    /// The part behind the braces, where there are braces.
    tail: Option<&'static str>,
}

impl Path {
    /// Reads a path at compile time.
    pub const fn new(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let (mut open, mut at) = (None, 0);
        while at < bytes.len() {
            match (bytes[at], open) {
                (b'{', None) => open = Some(at),
                (b'}', Some(open)) => {
                    let (head, tail) = (text.split_at(open).0, text.split_at(at + 1).1);
                    return Self { text, head, tail: Some(tail) };
                }
                _ => {}
            }
            at += 1;
        }
        Self { text, head: text, tail: None }
    }

    /// Whether it has a part in braces.
    pub fn has_parameter(&self) -> bool {
        self.tail.is_some()
    }

    /// What `path` has in place of the braces, empty where there are none; `None` for any other path.
    pub fn parameter<'a>(&self, path: &'a str) -> Option<&'a str> {
        let Some(tail) = self.tail else { return (path == self.head).then_some("") };
        let rest = path.strip_prefix(self.head)?.strip_suffix(tail)?;
        (!rest.is_empty() && !rest.starts_with('/')).then_some(rest)
    }
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A sender that proves itself by a signature or a token of its own: sources.
    Signed,
    /// The owner of a token with this scope, or a higher one. Reads are open to everyone while `API_TOKEN` is unset.
    Token(Scope),
    /// As `Token(Scope::Read)`, unless `POSTROOM_METRICS_PUBLIC` opens it.
    TokenUnlessPublic,
    /// Everyone: it holds no data.
    Open,
}

/// The listener of an endpoint, where reading has one of its own. Otherwise one listener has everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The one that senders reach.
    Public,
    /// The one for reading.
    Read,
    /// Either.
    Both,
}

impl Listener {
    /// Whether the endpoint is to be seen at a listener. `reads_apart`: reading has one of its own.
    pub fn is_shown(self, role: ListenerRole, reads_apart: bool) -> bool {
        match self {
            Self::Public => role == ListenerRole::Sources,
            Self::Read => role == ListenerRole::Reading || !reads_apart,
            Self::Both => true,
        }
    }
}

/// Whether web pages of other origins may read an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cors {
    /// Those that the operator named.
    Named,
    /// None.
    Never,
}

/// How much memory a response takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Little, or what is in memory anyway.
    Cheap,
    /// As much as others have sent: it takes room that all responses share.
    Page,
    /// A response without an end, which is sent as it is made.
    Stream,
}

/// How long a response may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Not at all.
    NoStore,
    /// As long as the browser thinks fit: nothing is said.
    Unsaid,
    /// By anybody, for so many seconds.
    Public {
        /// The seconds.
        seconds: u32,
    },
}

/// What a handler of an endpoint other than a source may look at.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The service.
    pub app: &'a AppState,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The path as it came.
    pub path: &'a str,
    /// What stands in it in place of the braces.
    pub parameter: &'a str,
    /// The query string.
    pub query: &'a str,
}

/// The work of a handler. In a box, so that a message does not pay for the room that a listing takes.
pub type Work<'a> = Pin<Box<dyn Future<Output = Result<Answer, ApiError>> + Send + 'a>>;

/// The function that makes the response.
#[derive(Debug, Clone, Copy)]
pub enum Handler {
    /// The source of the contract. Its requests have a result, in metrics and in the log.
    Original,
    /// The source that the path names. Where it has a handshake, it takes GET too.
    Source,
    /// A function that waits for nothing.
    Now(for<'a> fn(Call<'a>) -> Result<Answer, ApiError>),
    /// A function that asks the store.
    Later(for<'a> fn(Call<'a>) -> Work<'a>),
    /// Files below a folder: the row matches these names, and no others.
    Files(&'static [File]),
}

/// A file of a page. Its bytes are in the program.
#[derive(Debug)]
pub struct File {
    /// Its name below the folder.
    pub name: &'static str,
    /// Makes the response of its name.
    pub open: fn(&str) -> Result<Answer, ApiError>,
}

/// The entry of a handler in the OpenAPI document.
macro_rules! documented {
    ($($part:ident)::+) => {{
        #[derive(utoipa::OpenApi)]
        #[openapi(paths($($part)::+))]
        struct Operation;
        Some(<Operation as utoipa::OpenApi>::openapi as fn() -> utoipa::openapi::OpenApi)
    }};
}
pub(super) use documented;
