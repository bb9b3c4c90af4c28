//! How to reach a PostgreSQL server, and how to be careful with it.

use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

pub use super::trust::{Roots, Trust};
use super::url::{ConnectionUrl, password_of_file};
use runtime::secret_file::read_secret_file;

/// The setting of the password.
pub const PASSWORD: &str = "POSTROOM_POSTGRES_PASSWORD";

/// A server, and the limits of all operations on it. `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresConfig {
    /// Hosts, user, password and session settings.
    pub connection: tokio_postgres::Config,
    /// How much of the server's certificate must be proved.
    pub trust: Trust,
    /// Connections that write, one batch each at a time; another one is used where a commit takes long.
    pub writers: usize,
    /// Maximum wait for a connection.
    pub connect_timeout: Duration,
    /// Maximum wait for a commit, including a standby.
    pub write_timeout: Duration,
    /// What a commit waits for, if the operator chose; else at least `on`.
    pub synchronous_commit: Option<SynchronousCommit>,
    /// Whether readiness needs a synchronous standby.
    pub require_sync_standby: bool,
    /// How to try again if the first attempt is refused for being encrypted or not, like libpq for `prefer` and
    /// `allow`.
    pub other_way: Option<SslMode>,
    /// What is read again for each connection.
    pub rotated: RotatedFiles,
}

/// Files with the server or a password, which may be rotated or short-lived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotatedFiles {
    /// The whole URL.
    pub url: Option<PathBuf>,
    /// The password alone.
    pub password: Option<PathBuf>,
    /// In libpq's form; used if neither URL nor setting have a password.
    pub passfile: Option<PathBuf>,
}

/// The values of PostgreSQL's `synchronous_commit`, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SynchronousCommit {
    /// Nothing: a crash of the server loses acknowledged messages.
    Off,
    /// The server's own disk, whatever standbys there are.
    Local,
    /// A standby's operating system.
    RemoteWrite,
    /// A standby's disk, where one is synchronous.
    On,
    /// A standby applies it.
    RemoteApply,
}

impl SynchronousCommit {
    const ALL: [Self; 5] = [Self::Off, Self::Local, Self::RemoteWrite, Self::On, Self::RemoteApply];

    /// PostgreSQL's spelling.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Local => "local",
            Self::RemoteWrite => "remote_write",
            Self::On => "on",
            Self::RemoteApply => "remote_apply",
        }
    }

    /// The value with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

impl PostgresConfig {
    /// The server of a URL, with limits that suit tools and tests. The problem never holds more of the URL than the
    /// name of a
    /// parameter.
    pub fn of_url(url: &str) -> Result<Self, String> {
        let ConnectionUrl { connection, trust, other_way, passfile: _ } = ConnectionUrl::parse(url)?;
        Ok(Self {
            connection,
            trust,
            other_way,
            rotated: RotatedFiles::default(),
            writers: 2,
            connect_timeout: Duration::from_secs(5),
            write_timeout: Duration::from_secs(30),
            synchronous_commit: None,
            require_sync_standby: false,
        })
    }

    /// Host, port and database, without user and password.
    pub fn place(&self) -> String {
        let host = |host: &Host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(folder) => folder.display().to_string(),
        };
        let hosts: Vec<_> = self.connection.get_hosts().iter().map(host).collect();
        let ports: Vec<_> = self.connection.get_ports().iter().map(u16::to_string).collect();
        let port = if ports.is_empty() { "5432".to_owned() } else { ports.join(",") };
        let database = self.connection.get_dbname().or(self.connection.get_user()).unwrap_or_default();
        format!("PostgreSQL {}:{port}/{database}", hosts.join(","))
    }

    /// The present way to connect: files are read again, so that a rotated password or a short-lived token
    /// is never the one of the start. The error shows nothing of them.
    pub fn current(&self) -> Result<tokio_postgres::Config, String> {
        let RotatedFiles { url, password, passfile } = &self.rotated;
        let mut connection = self.connection.clone();
        if let Some(path) = url {
            let text =
                read_secret_file(&path.to_string_lossy()).map_err(|problem| format!("DATABASE_URL_FILE {problem}"))?;
            let text = String::from_utf8(text).map_err(|_| "DATABASE_URL_FILE is no longer UTF-8".to_owned())?;
            connection = ConnectionUrl::parse(&text)
                .map_err(|problem| format!("the URL in DATABASE_URL_FILE {problem}"))?
                .connection;
        }
        if let Some(path) = password {
            let password =
                read_secret_file(&path.to_string_lossy()).map_err(|problem| format!("{PASSWORD}_FILE {problem}"))?;
            connection.password(password);
        } else if let Some(path) = passfile {
            connection
                .password(password_of_file(path, &connection).map_err(|problem| format!("DATABASE_URL {problem}"))?);
        } else if let Some(password) = self.connection.get_password()
            && connection.get_password().is_none()
        {
            connection.password(password);
        }
        Ok(connection)
    }
}
