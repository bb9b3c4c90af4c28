//! Monitors the health of the database: at each readiness request, and by itself while it is
//! unhealthy, so that the service recovers without an operator and without the risk for a message.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::parameters::Parameters;
use super::probe::{PATIENCE, Probes};
use super::session::{Connector, GAVE_UP_WAITING, Session};
use super::shared::Shared;
use super::{schema, tables, task};
use crate::Health;
use crate::observer::{Commits, Gauges};

/// Interval of checks while it is unhealthy, or while jobs wait and no batch completes.
const INTERVAL: Duration = Duration::from_millis(500);

/// Minimum interval of checks of the other tasks while all are well, however often readiness is requested.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the table exists, whether writes are possible, and what commits would wait for.
const HEALTH: &str = "\
    SELECT to_regclass('messages') IS NOT NULL AND to_regclass('postroom_state') IS NOT NULL AS has_tables,
           pg_is_in_recovery() AS is_standby, current_setting('synchronous_standby_names') AS standby_names";
/// Writes as much as a small batch, of incompressible data: an empty commit would succeed on a full disk.
const PROBE: &str = "\
    WITH filler AS (SELECT string_agg(md5(random()::text), '') AS text FROM generate_series(1, 4096)),
         away AS (DELETE FROM postroom_probe)
    INSERT INTO postroom_probe SELECT convert_to(text, 'UTF8') FROM filler
    WHERE set_config('synchronous_commit', $1, true) <> ''
        AND set_config('client_min_messages', 'warning', true) <> ''";
/// The database in numbers for `/metrics`: bytes, and rows that wait to be counted and indexed.
const GAUGES: &str = "\
    SELECT (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
            WHERE oid IN (to_regclass('messages'), to_regclass('postroom_folded'), to_regclass('postroom_runs'),
                          to_regclass('postroom_stretches'), to_regclass('postroom_places'),
                          to_regclass('postroom_texts'), to_regclass('postroom_gone'),
                          to_regclass('postroom_gone_texts'), to_regclass('postroom_run_losses'),
                          to_regclass('postroom_buckets'), to_regclass('postroom_senders'),
                          to_regclass('postroom_sender_days'), to_regclass('postroom_details'),
                          to_regclass('postroom_payloads'), to_regclass('postroom_events'),
                          to_regclass('postroom_statuses'), to_regclass('postroom_states'))) AS bytes,
           (SELECT count(*) FROM messages WHERE arrival > (SELECT counted FROM postroom_state)) AS uncounted,
           (SELECT count(*) FROM messages WHERE arrival > (SELECT packed FROM postroom_search)) AS unindexed";

/// The monitoring task, on a connection of its own, so that nothing else delays it.
pub(super) struct HealthMonitor {
    shared: Arc<Shared>,
    connector: Connector,
    looks: mpsc::Receiver<oneshot::Sender<Health>>,
    sizes: mpsc::Receiver<oneshot::Sender<Gauges>>,
    session: Option<Session>,
    probes: Probes,
    /// Time of the last check of the other tasks.
    probed: Option<Instant>,
    /// The count of healthy checks at the last missing response, if no response came since.
    silent: Option<u64>,
}

impl HealthMonitor {
    pub fn new(
        shared: Arc<Shared>,
        connector: Connector,
        looks: mpsc::Receiver<oneshot::Sender<Health>>,
        sizes: mpsc::Receiver<oneshot::Sender<Gauges>>,
        probes: Probes,
    ) -> Self {
        Self { shared, connector, looks, sizes, session: None, probes, probed: None, silent: None }
    }

    /// Checks until no more requests can arrive.
    pub async fn run(mut self) {
        // Opens a connection now; later checks use it to detect a server that stops responding.
        self.look().await;
        loop {
            tokio::select! {
                look = self.looks.recv() => {
                    let Some(first) = look else { return };
                    let health = self.look().await;
                    let _ = first.send(health);
                    // Requests that arrived meanwhile get the same result, so that probes do not pile up.
                    while let Ok(other) = self.looks.try_recv() {
                        let _ = other.send(health);
                    }
                }
                size = self.sizes.recv() => {
                    let Some(reply) = size else { return };
                    let _ = reply.send(self.gauges().await);
                }
                () = tokio::time::sleep(INTERVAL) => {
                    let is_well = self.shared.health() == Health::Ready && task::fault(&self.shared.tasks).is_none();
                    if !is_well || self.shared.queue.is_held_up() {
                        self.look().await;
                    }
                }
            }
        }
    }

    /// Checks the database, with a write if the last write failed.
    async fn look(&mut self) -> Health {
        let well = self.shared.well.load(Ordering::Relaxed);
        let failures = self.shared.failures.load(Ordering::Relaxed);
        match tokio::time::timeout(PATIENCE, self.try_look()).await {
            Ok(Ok(())) => {
                if self.silent.take() == Some(well) {
                    // A new connection works, and no old one got a response since the last failure: the old ones are dead,
                    // although they were never closed.
                    self.connector.drop_all_but(self.session.as_ref());
                }
                self.ask_others(failures).await;
            }
            Ok(Err(failure)) => {
                self.session = None;
                self.shared.away(&failure);
                if self.silent.take() == Some(well) {
                    self.connector.drop_all_but(None);
                }
                if failure.health().is_none() {
                    return Health::Broken;
                }
            }
            Err(_) => {
                if let Some(session) = self.session.take() {
                    // A statement that waits for a standby or a lock would continue to wait on the server, one more for each
                    // check. The caller does not wait for this.
                    tokio::task::spawn_local(session.cancel());
                }
                let failure = Failure::Lost(format!("no response within {} s", PATIENCE.as_secs()));
                if self.shared.well.load(Ordering::Relaxed) != well {
                    // Other connections get responses.
                    self.silent = None;
                } else if self.silent == Some(well) {
                    // A new connection got no response either.
                    self.shared.away(&failure);
                    self.connector.drop_all_but(None);
                } else {
                    self.silent = Some(well);
                    self.shared.trouble(&failure, 0);
                }
            }
        }
        self.shared.health()
    }

    /// Checks the tasks that work for requests, on their connections and with their statements. Messages are accepted
    /// while any of them can write.
    async fn ask_others(&mut self, failures: u64) {
        let is_due = self.probed.is_none_or(|at| at.elapsed() >= PROBE_INTERVAL);
        if is_due || self.shared.health() != Health::Ready || task::fault(&self.shared.tasks).is_some() {
            self.probes.ask(&self.shared).await;
            self.probed = Some(Instant::now());
        }
        match task::fault(&self.shared.tasks) {
            None => self.shared.recovered(failures),
            Some(fault) => {
                if self.shared.can_write() {
                    self.shared.queue.reopen();
                }
                self.shared.hampered(&fault);
            }
        }
    }

    async fn try_look(&mut self) -> Result<(), Failure> {
        let mut first = true;
        loop {
            let session = self.session().await?;
            let row = match session.client.query_typed_one(HEALTH, &[]).await.map_err(Failure::from) {
                // The connection may have reached its maximum age; a fresh one decides.
                Err(Failure::Lost(_)) if std::mem::take(&mut first) => {
                    self.session = None;
                    continue;
                }
                row => row?,
            };
            let (has_tables, is_standby): (bool, bool) = (row.get("has_tables"), row.get("is_standby"));
            session.server.synchronous_standby_names = row.get("standby_names");
            if !has_tables {
                return Err(Failure::Broken("the tables are missing".to_owned()));
            }
            if is_standby {
                return Err(Failure::Broken("the server is a standby, which is read-only".to_owned()));
            }
            break;
        }
        let config = Arc::clone(&self.connector.config);
        let is_well = self.shared.health() == Health::Ready;
        let session = self.session().await?;
        if config.require_sync_standby && !session.server.survives_promotion(&config) {
            return Err(Failure::Broken(
                "there is no synchronous standby, and POSTROOM_REQUIRE_SYNC_STANDBY requires one".into(),
            ));
        }
        if !is_well {
            // A dump of an earlier build may have been restored.
            schema::upgrade_former(session).await?;
            if let Some(why) = tables::obstacle(session).await? {
                return Err(Failure::Broken(why));
            }
            let commit = session.server.effective_commit(&config).name();
            let warnings = session.warnings();
            // Waits for the commit, unlike `execute`.
            Parameters::new().text(commit).rows(&session.client, PROBE).await?;
            if session.warnings() > warnings {
                return Err(Failure::Broken(GAVE_UP_WAITING.to_owned()));
            }
        }
        Ok(())
    }

    async fn session(&mut self) -> Result<&mut Session, Failure> {
        if !self.session.as_ref().is_some_and(Session::is_open) {
            self.session = Some(self.connector.connect().await?);
        }
        Ok(self.session.as_mut().expect("opened above"))
    }

    async fn gauges(&mut self) -> Gauges {
        let ready = self.look().await == Health::Ready;
        let mut gauges = Gauges { ready, ..Gauges::default() };
        let config = Arc::clone(&self.connector.config);
        let Some(session) = self.session.as_ref().filter(|_| ready) else { return gauges };
        gauges.commits = Some(Commits {
            survive_crash: session.server.survives_crash(&config),
            survive_promotion: session.server.survives_promotion(&config),
        });
        let measured = tokio::time::timeout(PATIENCE, session.client.query_typed_one(GAUGES, &[])).await;
        if let Ok(Ok(row)) = measured {
            let number = |column: &str| u64::try_from(row.get::<_, i64>(column)).unwrap_or(0);
            gauges.database_bytes = number("bytes");
            gauges.uncounted = number("uncounted");
            // A smaller number is not reported as lag: searches read these rows directly.
            let least = self.shared.limits.indexed_least.unsigned_abs();
            gauges.index_lag = Some(number("unindexed")).filter(|lag| *lag >= least).unwrap_or(0);
        } else {
            self.session = None;
        }
        gauges
    }
}
