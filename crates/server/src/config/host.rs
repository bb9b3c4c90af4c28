//! Hosts in settings, URLs and headers: names, IPv4 addresses, and IPv6 addresses in
//! brackets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Schemes whose pages have no origin: browsers send `null`, or nothing.
const WITHOUT_ORIGIN: [&str; 9] = ["about", "blob", "data", "file", "ftp", "javascript", "view-source", "ws", "wss"];
/// Maximum length of a host name (RFC 1035, §2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// An origin as browsers send it in `Origin`: lower case, without the port that the scheme implies, without a path. `*`
/// is unchanged. An origin that no browser sends is refused with the reason.
pub fn origin(text: &str) -> Result<String, &'static str> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    if text.starts_with(['"', '\'']) {
        return Err("is in quotation marks, which Postroom does not remove");
    }
    if text.contains([' ', ';', '\t']) {
        return Err("contains a blank or a semicolon; separate origins by commas");
    }
    if text.eq_ignore_ascii_case("null") {
        return Err("is sent by all sandboxed pages and local files: null does not identify an origin");
    }
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme; write https:// or http:// before it")?;
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Err("has no scheme; write https:// or http:// before it");
    }
    if WITHOUT_ORIGIN.contains(&scheme.as_str()) {
        return Err(
            "has a scheme (such as file, data or wss) that no origin has; name the http or https origin of the page",
        );
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '\\']) {
        return Err("has a path or a query; an origin ends with the host and port");
    }
    let default = match scheme.as_str() {
        "https" => 443,
        "http" => 80,
        // For other schemes, browsers keep the host unchanged.
        _ if rest.is_empty() => return Err("names no host"),
        _ if rest.contains('*') => return Err(PATTERN),
        _ if rest.bytes().all(|byte| byte.is_ascii_graphic()) => return Ok(format!("{scheme}://{rest}")),
        _ => return Err("has a host of more than ASCII"),
    };
    Ok(match authority(rest)? {
        (host, Some(port)) if port != default => format!("{scheme}://{host}:{port}"),
        (host, _) => format!("{scheme}://{host}"),
    })
}

const PATTERN: &str = "is a pattern, which is not supported; name each origin, or use * alone for all";

/// Parses a host and an optional port, as in a URL. Returns the host in lower case, and addresses in their
/// shortest form.
pub fn authority(text: &str) -> Result<(String, Option<u16>), &'static str> {
    if text.contains('*') {
        return Err(PATTERN);
    }
    if text.contains('@') {
        return Err("contains a user name; only host and port are allowed");
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, behind) = rest.split_once(']').ok_or("has an opening bracket without a closing bracket")?;
            let address: Ipv6Addr = address.parse().map_err(|_| "has brackets without an IPv6 address")?;
            let port = match behind.strip_prefix(':') {
                Some(port) => Some(port),
                None if behind.is_empty() => None,
                None => return Err("has something other than a port after the IPv6 address"),
            };
            (ipv6(address), port)
        }
        None if text.parse::<Ipv6Addr>().is_ok() => {
            return Err("is an IPv6 address without brackets; write [::1]");
        }
        None => match text.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(text)?, None),
        },
    };
    let number = |port: &str| -> Result<u16, &'static str> {
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        port.parse().ok().filter(|_| digits).ok_or("has a port that is not a number from 0 to 65535")
    };
    let port = port.filter(|port| !port.is_empty()).map(number).transpose()?;
    Ok((host, port))
}

/// A host that is not an IPv6 address, in lower case. A host that ends in a number is an IPv4 address, and
/// browsers accept no other form of it.
fn name(host: &str) -> Result<String, &'static str> {
    let whole = host.strip_suffix('.').unwrap_or(host);
    if whole.is_empty() {
        return Err("names no host");
    }
    if !host.is_ascii() {
        return Err("has a host with non-ASCII characters; write it as browsers send it (xn--…)");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(plain);
    if whole.len() > NAME_BYTES_MAX || !whole.split('.').all(is_label) {
        return Err("has a host that is no name of a host");
    }
    let last = whole.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
    if is_number && whole.parse::<Ipv4Addr>().is_err() {
        return Err("has an IPv4 address that is not of the form 192.0.2.1");
    }
    Ok(host.to_ascii_lowercase())
}

/// The form of browsers: the last part is never written as IPv4.
fn ipv6(address: Ipv6Addr) -> String {
    match (address.to_ipv4_mapped(), address.segments()) {
        (Some(_), [.., high, low]) => format!("[::ffff:{high:x}:{low:x}]"),
        (None, _) => format!("[{address}]"),
    }
}

/// The address or name to listen on. An IPv6 address may be in brackets, as in URLs, and may name an interface.
pub fn to_bind(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.contains("://") {
        return Err("is a URL; only an address or a host name is allowed");
    }
    if text == "*" {
        return Err("must be an address: 0.0.0.0 for all of IPv4, :: for all of both");
    }
    let is_ipv6 = |text: &str| text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']').ok_or("has an opening bracket without a closing bracket")?;
        return match behind {
            _ if !is_ipv6(address) => Err("has brackets without an IPv6 address"),
            "" => Ok(address.to_owned()),
            _ => Err(WITH_PORT),
        };
    }
    if is_ipv6(text) {
        return Ok(text.to_owned());
    }
    match text.split_once(':') {
        Some((host, port)) if name(host).is_ok() && port.bytes().all(|byte| byte.is_ascii_digit()) => Err(WITH_PORT),
        Some(_) => Err("has a host that is neither a host name nor an address"),
        None => name(text).map(|_| text.to_owned()),
    }
}

const WITH_PORT: &str = "contains a port, which is a separate setting (PORT, POSTROOM_SERVER_READ_PORT)";

/// The address of a service that listens on `host`, for clients on the same machine, in the form of URLs.
pub fn to_reach(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => format!("[{}]", Ipv6Addr::LOCALHOST),
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_browsers_send_and_stays_so() {
        for (written, sent) in [
            ("https://A.Example:443/", "https://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("https://a.example:", "https://a.example"),
            ("https://a.example:0080", "https://a.example:80"),
            ("https://a.example.", "https://a.example."),
            ("https://a_b.example", "https://a_b.example"),
            ("http://[::FFFF:127.0.0.1]:1", "http://[::ffff:7f00:1]:1"),
            ("http://[2001:db8:0:0:1:0:0:1]", "http://[2001:db8::1:0:0:1]"),
            ("Tauri://localhost/", "tauri://localhost"),
        ] {
            assert_eq!(origin(written).as_deref(), Ok(sent), "{written}");
            assert_eq!(origin(sent).as_deref(), Ok(sent), "{sent}");
        }
    }

    #[test]
    fn what_listens_on_all_addresses_is_reached_on_its_own_machine() {
        for (host, reached) in [
            ("0.0.0.0", "127.0.0.1"),
            ("::", "[::1]"),
            ("::1", "[::1]"),
            ("10.0.0.1", "10.0.0.1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(to_reach(host), reached);
        }
        assert_eq!(to_bind("[fe80::1%eth0]").as_deref(), Ok("fe80::1%eth0"));
        assert_eq!(to_bind("inbox.example.com").as_deref(), Ok("inbox.example.com"));
        assert_eq!(to_bind("::1:8000").as_deref(), Ok("::1:8000"), "that is an address too");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_taken_is_taken_again_as_itself(text in "(https?|app)://[a-zA-Z0-9.:\\[\\]*@/ -]{0,20}") {
            if let Ok(sent) = origin(&text) {
                proptest::prop_assert_eq!(origin(&sent), Ok(sent.clone()));
            }
        }
    }
}
