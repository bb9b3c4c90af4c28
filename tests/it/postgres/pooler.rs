//! Tests through PgBouncer in transaction mode, with fewer server connections than the replicas request.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::sources::{sources_on, status_envelope};
use super::{assert_holds, own_cluster};
use crate::harness::cluster::{Cluster, sql, try_sql};
use crate::harness::load::Load;
use crate::harness::random::Random;
use crate::harness::test_source::all_sources;
use crate::harness::{Setup, TestSource, message, wait_until};
use crate::sources::{envelope, text_message};

/// A running PgBouncer, stopped when dropped.
struct Pooler(Child);

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let found = folders.map(|folder| folder.join("pgbouncer")).find(|program| program.exists());
    if found.is_none() {
        println!("skipped: PgBouncer is not installed (Debian: apt-get install pgbouncer)");
    }
    found
}

/// Starts a PgBouncer in front of the cluster, on a socket in the same folder.
fn start(program: &std::path::Path, cluster: &Cluster) -> Pooler {
    let folder = cluster.folder().display();
    let settings = format!(
        "[databases]\n* = host={folder} port=5432 user=postroom\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432\n\
         unix_socket_dir = {folder}\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\nmax_client_conn = 100\n\
         logfile = {folder}/pooler.log\n"
    );
    let path = cluster.folder().join("pooler.ini");
    std::fs::write(&path, settings).unwrap();
    let mut command = cluster.unprivileged(program.to_str().expect("a plain path"));
    command.arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let pooler = Pooler(command.spawn().expect("it starts"));
    wait_until("the pooler answers", || try_sql(&through(&cluster.url_of("postgres")), "SELECT 1").ok());
    pooler
}

fn through(url: &str) -> String {
    format!("{url}&port=6432")
}

#[test]
fn replicas_behind_a_pooler_keep_every_promise() {
    let (Some(program), Some(cluster)) = (program(), own_cluster()) else { return };
    let _pooler = start(&program, &cluster);
    let mut random = Random::announced("load through a pooler");
    let url = cluster.database();
    let behind = through(&url);
    let replicas = [sources_on(&behind).start(), sources_on(&behind).start()];
    let load = Load::start(replicas[0].address, 16, "m", &mut random);
    let source = TestSource::of(&all_sources(Setup::new()), "whatsapp");
    std::thread::scope(|scope| {
        for at in 0..40 {
            let (replica, source) = (&replicas[at % 2], &source);
            scope.spawn(move || {
                let messages = [text_message(&format!("d{}", at / 2), "x"), text_message("same", "x")];
                assert_eq!(source.post(replica, &envelope(&messages), "1").status, 200);
                let state = if at % 3 == 0 { "read" } else { "sent" };
                assert_eq!(source.post(replica, &status_envelope("out", state), "1").status, 200);
            });
        }
    });
    load.wait_for_acks(500);
    let mut sent = load.finish();
    assert!(sent.refused.is_empty(), "{:?}", sent.refused);
    let sources = (0..20).map(|at| format!("whatsapp:7:d{at}")).chain(["whatsapp:7:same".to_owned()]);
    sources.for_each(|id| {
        sent.tried.insert(id.clone());
        sent.acked.insert(id);
    });
    assert_holds(&url, &sent);
    for replica in &replicas {
        replica.store(&message("last"));
        assert_eq!(replica.get("/messages?q=hello&limit=1").status, 200);
        assert_eq!(replica.get("/messages/out/statuses").json()["status"], "read");
        assert_eq!(replica.get("/messages").json()["total"], sent.acked.len() + 1);
        assert_eq!(replica.get("/health/ready").status, 200);
    }
    let connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postroom'";
    assert!(sql(&url, connections).parse::<u32>().unwrap() <= 3, "fewer than the replicas hold to the pooler");
    assert_eq!(sql(&url, "SELECT current_setting('synchronous_commit')"), "on");
}
