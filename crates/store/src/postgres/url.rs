//! The URL of a PostgreSQL server with libpq's parameters, and its password file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use super::trust::{Roots, Trust};

/// The contents of a URL.
#[derive(Debug)]
pub struct ConnectionUrl {
    /// Hosts, user, password and session settings.
    pub connection: tokio_postgres::Config,
    /// How strictly the server's certificate is verified.
    pub trust: Trust,
    /// The mode of a second attempt if the server refuses the first one for its encryption.
    pub other_way: Option<SslMode>,
    /// The password file in libpq's format; empty if there is none.
    pub passfile: PathBuf,
}

impl ConnectionUrl {
    /// Parses a URL. The error contains nothing of it except the name of a parameter.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (rest, own) = take_own_parameters(url)?;
        let mut connection: tokio_postgres::Config = rest.parse().map_err(|error: tokio_postgres::Error| {
            let why = std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            format!("is not a PostgreSQL URL{why}")
        })?;
        // The library takes the text after the first '@' for a host, and hosts are shown.
        if connection.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
            return Err(UNESCAPED.to_owned());
        }
        if !own.host.is_empty() && !connection.get_hosts().is_empty() {
            return Err("names hosts twice".to_owned());
        }
        own.host.split(',').filter(|host| !host.is_empty()).for_each(|host| {
            connection.host(host);
        });
        if connection.get_hosts().is_empty() && connection.get_hostaddrs().is_empty() {
            connection.host("localhost");
        }
        if connection.get_user().is_none() {
            let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
            connection.user(user.ok_or_else(|| "names no user".to_owned())?);
        }
        let (trust, other_way) = trust(&mut connection, &own)?;
        if connection.get_application_name().is_none() {
            connection.application_name("postroom");
        }
        keep_alive(&mut connection, &rest, &own)?;
        Ok(Self { connection, trust, other_way, passfile: own.passfile.into() })
    }
}

/// A server that vanished silently must not block a connection for hours. The URL's value is used; 0 is
/// the system's default.
fn keep_alive(connection: &mut tokio_postgres::Config, rest: &str, own: &Own) -> Result<(), String> {
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let is_given = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    // In milliseconds, unlike the library's other settings.
    let patience = match own.tcp_user_timeout.as_str() {
        "" => Ok(10_000),
        given => given.parse().map_err(|_| "has a tcp_user_timeout that is not a number of milliseconds".to_owned()),
    };
    match patience? {
        0 => {}
        patience => drop(connection.tcp_user_timeout(Duration::from_millis(patience))),
    }
    if !is_given("keepalives_idle") {
        connection.keepalives_idle(Duration::from_secs(10));
    }
    if !is_given("keepalives_interval") {
        connection.keepalives_interval(Duration::from_secs(5));
    }
    match own.keepalives_count.as_str() {
        "" if is_given("keepalives_retries") => {}
        "" => drop(connection.keepalives_retries(3)),
        "0" => {}
        given => {
            let count = given.parse().map_err(|_| "has a keepalives_count that is not a number".to_owned())?;
            connection.keepalives_retries(count);
        }
    }
    Ok(())
}

/// The parameters that the client library does not handle.
#[derive(Default)]
struct Own {
    /// Several, separated by commas, which the library supports only before the database's name.
    host: String,
    sslmode: String,
    sslrootcert: String,
    passfile: String,
    tcp_user_timeout: String,
    /// The library has another name for it.
    keepalives_count: String,
}

const UNESCAPED: &str = "has an '@' or a '?' in its user, password or a parameter; write %40 and %3F";

/// Splits our parameters off; the rest is a URL for the library.
fn take_own_parameters(url: &str) -> Result<(String, Own), String> {
    if url.split_once('@').is_some_and(|(user, _)| user.contains('?')) {
        return Err(UNESCAPED.to_owned());
    }
    let Some((base, query)) = url.split_once('?') else { return Ok((url.to_owned(), Own::default())) };
    let (mut own, mut rest) = (Own::default(), Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "host" => &mut own.host,
            "sslmode" => &mut own.sslmode,
            "sslrootcert" => &mut own.sslrootcert,
            "passfile" => &mut own.passfile,
            "tcp_user_timeout" => &mut own.tcp_user_timeout,
            "keepalives_count" => &mut own.keepalives_count,
            // These parameters of libpq have no counterpart here, and can be ignored safely.
            "gssencmode" | "sslcompression" | "sslsni" | "fallback_application_name" | "client_encoding" => continue,
            "sslcert" | "sslkey" | "sslcrl" | "sslpassword" | "service" | "krbsrvname" => {
                return Err(format!("has the parameter '{name}', which is not supported"));
            }
            _ => {
                rest.push(pair);
                continue;
            }
        };
        *place = decoded(value).ok_or_else(|| format!("has a parameter '{name}' that is not UTF-8"))?;
    }
    Ok((if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) }, own))
}

/// Percent-decoding only: in these URLs a plus is a plus.
fn decoded(value: &str) -> Option<String> {
    let escaped = value.replace('+', "%2B");
    form_urlencoded::parse(escaped.as_bytes()).next().map_or(Some(String::new()), |(decoded, _)| {
        (!decoded.contains(char::REPLACEMENT_CHARACTER)).then(|| decoded.into_owned())
    })
}

/// Libpq's rules: a given root certificate must verify the server if the
/// connection is encrypted, and `sslrootcert=system` verifies the host. `prefer`
/// continues without encryption if the server refuses it, and `allow` with it.
fn trust(connection: &mut tokio_postgres::Config, own: &Own) -> Result<(Trust, Option<SslMode>), String> {
    let roots = match own.sslrootcert.as_str() {
        "" | "system" => Roots::System,
        path => Roots::File(path.into()),
    };
    let system_asked = own.sslrootcert == "system";
    let named = match own.sslrootcert.is_empty() {
        true => Trust::Anyone,
        false => Trust::Authority(roots.clone()),
    };
    let (mode, trust, other_way) = match own.sslmode.as_str() {
        "" if system_asked => (SslMode::Require, Trust::Host(roots), None),
        "disable" => (SslMode::Disable, Trust::Anyone, None),
        "verify-full" => (SslMode::Require, Trust::Host(roots), None),
        "prefer" | "allow" | "require" | "verify-ca" if system_asked => {
            return Err("has sslrootcert=system, which needs sslmode=verify-full".to_owned());
        }
        "" | "prefer" => (SslMode::Prefer, named, Some(SslMode::Disable)),
        "allow" => (SslMode::Disable, named, Some(SslMode::Require)),
        "require" => (SslMode::Require, named, None),
        "verify-ca" => (SslMode::Require, Trust::Authority(roots), None),
        _ => {
            let known = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(format!("has an sslmode that is none of {known}"));
        }
    };
    connection.ssl_mode(mode);
    Ok((trust, other_way))
}

/// The first matching line of a password file (`host:port:database:user:password`, `*` for any).
///
/// Source: PostgreSQL documentation, "The Password File".
pub fn password_of_file(path: &Path, connection: &tokio_postgres::Config) -> Result<String, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("names a passfile that cannot be read: {error}"))?;
    let host = match connection.get_hosts().first() {
        Some(Host::Tcp(host)) => host.clone(),
        _ => "localhost".to_owned(),
    };
    let port = connection.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = connection.get_user().unwrap_or_default();
    let wanted = [host.as_str(), &port, connection.get_dbname().unwrap_or(user), user];
    let fits = |line: &str| -> Option<String> {
        let fields = fields_of_password_line(line);
        let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        (fields.len() == 5 && fits).then(|| fields[4].clone())
    };
    let found = text.lines().filter(|line| !line.starts_with('#')).find_map(fits);
    found.ok_or_else(|| "names a passfile without a line for this host, port, database and user".to_owned())
}

/// Five fields between colons; a backslash escapes the next character.
fn fields_of_password_line(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut().expect("never empty").extend(characters.next()),
            other => fields.last_mut().expect("never empty").push(other),
        }
    }
    fields
}
