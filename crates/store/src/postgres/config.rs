//! The connection settings of a PostgreSQL server, and the limits of operations on it.

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
    /// How strictly the server's certificate is verified.
    pub trust: Trust,
    /// Number of writing connections, one batch each at a time; another one is used while a commit is slow.
    pub writers: usize,
    /// Maximum wait for a connection.
    pub connect_timeout: Duration,
    /// Maximum wait for a commit, including a standby.
    pub write_timeout: Duration,
    /// The `synchronous_commit` that the operator chose; otherwise at least `on`.
    pub synchronous_commit: Option<SynchronousCommit>,
    /// Whether readiness needs a synchronous standby.
    pub require_sync_standby: bool,
    /// The mode of a second attempt if the server refuses the first
    /// one for its encryption, like libpq for `prefer` and `allow`.
    pub other_way: Option<SslMode>,
    /// Files that are read again for each connection.
    pub rotated: RotatedFiles,
}

/// Files with the URL or a password, which may be rotated or short-lived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RotatedFiles {
    /// The whole URL.
    pub url: Option<PathBuf>,
    /// The password alone.
    pub password: Option<PathBuf>,
    /// In libpq's format; used if neither the URL nor the settings have a password.
    pub passfile: Option<PathBuf>,
}

/// The values of PostgreSQL's `synchronous_commit`, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SynchronousCommit {
    /// No wait: a crash of the server loses acknowledged messages.
    Off,
    /// Waits for the server's own disk, but for no standby.
    Local,
    /// Waits for the operating system of a standby.
    RemoteWrite,
    /// Waits for the disk of a synchronous standby, if there is one.
    On,
    /// Waits until a standby has applied it.
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
    /// The server of a URL, with limits that suit tools and tests. The error contains nothing of the URL except
    /// the name of a
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

    /// The current connection settings: files are read again, so that a rotated password or a short-lived token
    /// is always the current one. The error contains nothing of them.
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
