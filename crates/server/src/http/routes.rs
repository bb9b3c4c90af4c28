//! The route table: an endpoint is one row, and nothing else. Labels, matching, tokens, rates, CORS,
//! `Allow`, listeners, caching and the paths of the OpenAPI document follow from the row.

use hyper::Method;

use super::route::{Access, Cache, Cors, Cost, Handler, Listener, Path, Route, documented};
use super::{details, docs, health, index, messages, metrics, receive, stats};
use crate::config::Scope;

/// The path of the page that names all endpoints.
pub const ROOT: &str = "/";
/// The source of the contract.
pub const WEBHOOK: &str = "/webhook";

/// Every path with a response other than 404. The first row that matches counts. A path that extends another
/// one after its braces follows it directly and has priority. Rows of one path are adjacent.
pub static ROUTES: &[Route] = &[
    Route {
        path: Path::new(ROOT),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Read,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/",
        handler: Handler::Now(|call| Ok(index::index_page(call.headers))),
        operation: documented!(index::index_page),
    },
    Route {
        path: Path::new(WEBHOOK),
        method: Method::POST,
        access: Access::Signed,
        listener: Listener::Public,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/webhook",
        handler: Handler::Original,
        operation: documented!(receive::receive),
    },
    Route {
        path: Path::new("/webhook/{source}"),
        method: Method::POST,
        access: Access::Signed,
        listener: Listener::Public,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/webhook/{source}",
        handler: Handler::Source,
        operation: documented!(receive::receive_at_source),
    },
    Route {
        path: Path::new("/messages"),
        method: Method::GET,
        access: Access::Token(Scope::Read),
        listener: Listener::Read,
        cors: Cors::Named,
        cost: Cost::Page,
        cache: Cache::NoStore,
        label: "/messages",
        handler: Handler::Later(|call| Box::pin(messages::list(call))),
        operation: documented!(messages::list),
    },
    Route {
        path: Path::new("/messages/{id}"),
        method: Method::GET,
        access: Access::Token(Scope::Read),
        listener: Listener::Read,
        cors: Cors::Named,
        cost: Cost::Page,
        cache: Cache::NoStore,
        label: "/messages/{id}",
        handler: Handler::Later(|call| Box::pin(details::message(call))),
        operation: documented!(details::message),
    },
    Route {
        path: Path::new("/messages/{id}/statuses"),
        method: Method::GET,
        access: Access::Token(Scope::Read),
        listener: Listener::Read,
        cors: Cors::Named,
        cost: Cost::Page,
        cache: Cache::NoStore,
        label: "/messages/{id}/statuses",
        handler: Handler::Later(|call| Box::pin(details::statuses(call))),
        operation: documented!(details::statuses),
    },
    Route {
        path: Path::new("/events"),
        method: Method::GET,
        access: Access::Token(Scope::Read),
        listener: Listener::Read,
        cors: Cors::Named,
        cost: Cost::Page,
        cache: Cache::NoStore,
        label: "/events",
        handler: Handler::Later(|call| Box::pin(details::events(call))),
        operation: documented!(details::events),
    },
    Route {
        path: Path::new("/events/{id}"),
        method: Method::GET,
        access: Access::Token(Scope::Read),
        listener: Listener::Read,
        cors: Cors::Never,
        cost: Cost::Page,
        cache: Cache::NoStore,
        label: "/events/{id}",
        handler: Handler::Later(|call| Box::pin(details::event(call))),
        operation: documented!(details::event),
    },
    Route {
        path: Path::new("/stats"),
        method: Method::GET,
        access: Access::Token(Scope::Read),
        listener: Listener::Read,
        cors: Cors::Named,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/stats",
        handler: Handler::Later(|call| Box::pin(stats::summarize(call))),
        operation: documented!(stats::summarize),
    },
    Route {
        path: Path::new("/health/live"),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Both,
        cors: Cors::Named,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/health/live",
        handler: Handler::Now(|_| Ok(health::live())),
        operation: documented!(health::live),
    },
    Route {
        path: Path::new(READY),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Both,
        cors: Cors::Named,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/health/ready",
        handler: Handler::Later(|call| Box::pin(health::ready(call))),
        operation: documented!(health::ready),
    },
    Route {
        path: Path::new("/metrics"),
        method: Method::GET,
        access: Access::TokenUnlessPublic,
        listener: Listener::Read,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/metrics",
        handler: Handler::Later(|call| Box::pin(metrics::expose(call))),
        operation: documented!(metrics::expose),
    },
    Route {
        path: Path::new("/openapi.json"),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Read,
        cors: Cors::Named,
        cost: Cost::Cheap,
        cache: Cache::NoStore,
        label: "/openapi.json",
        handler: Handler::Now(|_| Ok(docs::openapi())),
        operation: documented!(docs::openapi),
    },
    Route {
        path: Path::new("/docs"),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Read,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::Unsaid,
        label: "/docs",
        handler: Handler::Now(|call| Ok(docs::page(call.path.ends_with('/')))),
        operation: documented!(docs::page),
    },
    Route {
        path: Path::new("/docs/{file}"),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Read,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::Unsaid,
        label: "/docs",
        handler: Handler::Files(docs::OWN_FILES),
        operation: None,
    },
    Route {
        path: Path::new("/docs/{file}"),
        method: Method::GET,
        access: Access::Open,
        listener: Listener::Read,
        cors: Cors::Never,
        cost: Cost::Cheap,
        cache: Cache::Public { seconds: 3_600 },
        label: "/docs",
        handler: Handler::Files(docs::SWAGGER_FILES),
        operation: None,
    },
];

/// The readiness probe of orchestrators.
pub const READY: &str = "/health/ready";

/// The path of a source, as senders have to call it.
pub fn path_of_source(name: &str) -> String {
    format!("{WEBHOOK}/{name}")
}

/// The row of a request, and the value of the braces in its path.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The row of the path and method; if the path has only other methods, its first row.
    pub route: &'static Route,
    /// The number of the row.
    pub number: usize,
    /// The number of the first row of the path.
    first: usize,
    /// The value of the braces.
    pub parameter: &'a str,
}

/// The row of a path and method. One slash at the end is ignored. HEAD has the row of GET.
pub fn find<'a>(path: &'a str, method: &Method) -> Option<Found<'a>> {
    let path = source_path(path);
    let path = match path.strip_suffix('/') {
        Some("") | None => path,
        Some(shorter) => shorter,
    };
    let (first, parameter) = find_path(ROUTES, path)?;
    let wanted = if *method == Method::HEAD { &Method::GET } else { method };
    let mut found = Found { route: &ROUTES[first], number: first, first, parameter };
    if found.route.method != *wanted
        && let Some(at) = found.rows().iter().position(|row| row.method == *wanted)
    {
        (found.route, found.number) = (&ROUTES[first + at], first + at);
    }
    Some(found)
}

/// The first row of a path, and the value of the braces.
fn find_path<'a>(rows: &[Route], path: &'a str) -> Option<(usize, &'a str)> {
    let takes = |at: usize| {
        let parameter = rows[at].path.parameter(path)?;
        match rows[at].handler {
            Handler::Files(files) => files.iter().any(|file| file.name == parameter).then_some((at, parameter)),
            _ => Some((at, parameter)),
        }
    };
    let (at, parameter) = (0..rows.len()).find_map(takes)?;
    if !rows[at].path.has_parameter() {
        return Some((at, parameter));
    }
    let text = rows[at].path.text;
    let extends = |other: &usize| rows[*other].path.text.starts_with(text);
    let longer = (at + 1..rows.len()).take_while(extends).filter(|other| rows[*other].path.text != text);
    longer.filter_map(takes).last().or(Some((at, parameter)))
}

impl Found<'_> {
    /// All rows of the path.
    pub fn rows(&self) -> &'static [Route] {
        let rows = &ROUTES[self.first..];
        let count = rows.iter().take_while(|row| row.path.text == rows[0].path.text).count();
        &rows[..count]
    }

    /// Whether a row has the method. HEAD counts as GET.
    pub fn takes(&self, method: &Method) -> bool {
        self.route.method == *method || (*method == Method::HEAD && self.route.method == Method::GET)
    }
}

/// The methods that the service knows, in the order of the header `Allow`.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The methods of rows, separated by commas.
pub fn methods<'a>(rows: impl Iterator<Item = &'a Route> + Clone) -> String {
    let taken = METHODS.iter().filter(|method| rows.clone().any(|row| row.method == **method));
    taken.map(Method::as_str).collect::<Vec<_>>().join(", ")
}

/// The methods of rows in the form of the header `Allow`. Sources also accept HEAD, a check for existence.
/// Sources with a handshake accept GET too.
pub fn allowed(rows: &[Route], has_handshake: bool) -> String {
    let taken = methods(rows.iter());
    let is_read = rows.iter().any(|row| row.method == Method::GET || row.access == Access::Signed);
    let handshake = if has_handshake && !taken.contains("GET") { "GET, " } else { "" };
    format!("{handshake}{taken}{}, OPTIONS", if is_read { ", HEAD" } else { "" })
}

/// The path with one slash before `webhook`, if there are several: a base URL that ends in a slash adds one.
/// In other paths several slashes stay and give 404: an additional slash must not bypass a rule of a proxy.
fn source_path(path: &str) -> &str {
    let bare = path.trim_start_matches('/');
    if path.len() <= bare.len() + 1 {
        return path;
    }
    let single = &path[path.len() - bare.len() - 1..];
    match single.strip_prefix(WEBHOOK) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => single,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> Option<&'static str> {
        find(path, &Method::GET).map(|found| found.route.path.text)
    }

    #[test]
    fn paths_lead_where_the_table_says() {
        assert_eq!(text("/"), Some("/"));
        assert_eq!(text("/webhook/"), Some("/webhook"));
        assert_eq!(text("/docs/docs.css"), Some("/docs/{file}"));
        for unknown in ["", "/webhook//", "/Webhook", "/docs/a/b", "/health", "*", "/messages//", "/docs/x", "/{id}"] {
            assert_eq!(text(unknown), None, "{unknown}");
        }
        assert_eq!(text("/docs/"), Some("/docs"));
        assert_eq!((text("//webhook"), text("///webhook/x")), (Some("/webhook"), Some("/webhook/{source}")));
        for doubled in ["//messages", "//webhooks", "/a//webhook", "//messages/webhook", "/webhook//x"] {
            assert_eq!(text(doubled), None, "{doubled}");
        }
        assert_eq!(text("/webhook/meta/"), Some("/webhook/{source}"));
        assert_eq!(text("/messages/a/b%2Fc"), Some("/messages/{id}"));
        assert_eq!(text("/messages/a/statuses/"), Some("/messages/{id}/statuses"));
        assert_eq!((text("/messages//statuses"), text("/messages/statuses")), (None, Some("/messages/{id}")));
        assert_eq!(text("/events/"), Some("/events"));
        assert_eq!(text("/events/7/"), Some("/events/{id}"));
        assert_eq!(text("/messages/{id}"), Some("/messages/{id}"));
    }

    #[test]
    fn the_part_in_braces_is_handed_over_as_it_came() {
        let parameter = |path| find(path, &Method::GET).map(|found| found.parameter);
        assert_eq!(parameter("/messages/a%2Fb%3D/statuses"), Some("a%2Fb%3D"));
        assert_eq!(parameter("/messages/whatsapp:1:wamid.A/B="), Some("whatsapp:1:wamid.A/B="));
        assert_eq!(parameter("/messages/a/"), Some("a"));
        assert_eq!(parameter("/webhook/a//"), Some("a/"), "two slashes are one too many");
        assert_eq!((parameter("//webhook/a/b/"), parameter("/stats/")), (Some("a/b"), Some("")));
    }

    #[test]
    fn no_row_hides_another_and_each_is_whole() {
        for (number, row) in ROUTES.iter().enumerate() {
            let names: Vec<&str> = match row.handler {
                Handler::Files(files) => files.iter().map(|file| file.name).collect(),
                _ => vec!["x"],
            };
            for name in names {
                let text = row.path.text;
                let path = match (text.find('{'), text.find('}')) {
                    (Some(open), Some(close)) => format!("{}{name}{}", &text[..open], &text[close + 1..]),
                    _ => text.to_owned(),
                };
                let found = find(&path, &row.method).unwrap_or_else(|| panic!("{path} leads nowhere"));
                assert_eq!(found.number, number, "{} {path} leads to {}", row.method, found.route.path.text);
            }
            let is_source = matches!(row.handler, Handler::Original | Handler::Source);
            assert_eq!(is_source, row.access == Access::Signed, "{}: only sources verify signatures", row.path.text);
            assert!(METHODS.contains(&row.method), "{} has a method that Allow does not name", row.path.text);
            let is_files = matches!(row.handler, Handler::Files(_));
            assert_eq!(is_files, row.operation.is_none(), "{} in the OpenAPI document", row.path.text);
        }
    }

    #[test]
    fn allow_names_the_methods_of_all_rows_of_a_path() {
        let allow = |path, has_handshake| {
            let found = find(path, &Method::DELETE).unwrap();
            assert!(!found.takes(&Method::DELETE));
            allowed(found.rows(), has_handshake)
        };
        assert_eq!(allow("/messages", false), "GET, HEAD, OPTIONS");
        assert_eq!(allow("/webhook/x", false), "POST, HEAD, OPTIONS");
        assert_eq!(allow("/webhook/x", true), "GET, POST, HEAD, OPTIONS");
        assert_eq!(allowed(ROUTES, false), "GET, POST, HEAD, OPTIONS", "of the whole service");
    }
}
