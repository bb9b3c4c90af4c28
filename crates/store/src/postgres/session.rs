//! A connection to the server, and the properties of the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::engine::{self, Server};
use super::failure::Failure;
use super::tls::{self, TlsError};
use crate::postgres::config::{PostgresConfig, Roots, Trust};

/// Maximum time of a request to cancel a statement.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);

/// The error if a commit ended with a warning.
pub(super) const GAVE_UP_WAITING: &str = "the wait for a synchronous standby was cancelled";

/// The settings of a connection.
#[derive(Clone)]
pub(crate) struct Connector {
    pub config: Arc<PostgresConfig>,
    tls: MakeRustlsConnect,
    /// The drivers of the connections that this connector and its clones opened.
    drivers: Arc<Mutex<Vec<AbortHandle>>>,
}

/// An open connection. Dropping it ends the session and closes it.
pub(crate) struct Session {
    pub client: Client,
    pub server: Server,
    /// Number of warnings: the only one that our statements can cause is a cancelled wait for a standby.
    warnings: Arc<AtomicU64>,
    driver: AbortHandle,
    tls: MakeRustlsConnect,
}

impl Connector {
    pub fn new(config: Arc<PostgresConfig>) -> Result<Self, TlsError> {
        let tls = tls::connector(&config.trust)?;
        Ok(Self { config, tls, drivers: Arc::default() })
    }

    /// Opens a connection within the connect timeout.
    pub async fn connect(&self) -> Result<Session, Failure> {
        let patience = self.config.connect_timeout;
        let late = || Failure::Lost(format!("no connection within {} s", patience.as_secs()));
        tokio::time::timeout(patience, self.connect_at_leisure()).await.unwrap_or_else(|_| Err(late()))
    }

    async fn connect_at_leisure(&self) -> Result<Session, Failure> {
        let tls = self.tls()?;
        let mut way = self.config.current().map_err(Failure::Broken)?;
        let opened = match (way.connect(tls.clone()).await, self.config.other_way) {
            (Err(error), Some(other)) if is_about_encryption(&error) => {
                way.ssl_mode(other);
                // If the second attempt fails too, the error of the first one is reported.
                way.connect(tls.clone()).await.map_err(|_| error)
            }
            (opened, _) => opened,
        };
        let (client, mut connection) = opened?;
        let warnings = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&warnings);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    let is_warning = notice.parsed_severity() == Some(Severity::Warning);
                    if is_warning && *notice.code() == SqlState::WARNING {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
        .abort_handle();
        let server = engine::ask(&client).await?;
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(driver.clone());
        drop(drivers);
        Ok(Session { client, server, warnings, driver, tls })
    }

    /// The root certificates of a file are read again for each connection, because they may be renewed.
    fn tls(&self) -> Result<MakeRustlsConnect, Failure> {
        match &self.config.trust {
            Trust::Authority(Roots::File(_)) | Trust::Host(Roots::File(_)) => Ok(tls::connector(&self.config.trust)?),
            _ => Ok(self.tls.clone()),
        }
    }

    /// Ends all other connections at once. A request that waits on one learns
    /// that the connection is lost, and the outcome of its statement is unknown.
    pub fn drop_all_but(&self, kept: Option<&Session>) {
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, dropped) =
            drivers.drain(..).partition::<Vec<_>, _>(|driver| kept.is_some_and(|kept| kept.driver.id() == driver.id()));
        *drivers = kept;
        dropped.iter().for_each(AbortHandle::abort);
    }
}

/// Whether the other attempt, encrypted or not, may work: the handshake failed, or the server has no rule for this one.
fn is_about_encryption(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
        // The library exposes the kind of its own errors only in their texts.
        None => error.to_string().contains("TLS"),
    }
}

impl Session {
    /// Whether it is still usable, as far as known.
    pub fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Warnings that the server sent so far.
    pub fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// Asks the server to cancel the current statement, so that it holds
    /// no locks for an abandoned request. Then the connection is closed.
    pub async fn cancel(self) {
        let token = self.client.cancel_token();
        let _ = tokio::time::timeout(CANCEL_PATIENCE, token.cancel_query(self.tls.clone())).await;
        // Otherwise it would wait for a response that a silent server never sends.
        self.driver.abort();
    }
}
