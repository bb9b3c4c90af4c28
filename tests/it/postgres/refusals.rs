//! Unusable databases and settings are reported in one line with advice, without a hang or a password.

use std::net::TcpListener;

use super::{on, own_cluster, wait_for_readiness};
use crate::harness::cluster::{self, Cluster, as_user, sql};
use crate::harness::{Server, body, message};

/// Starts the program, expects a refusal, and returns its line.
fn refusal(url: &str) -> String {
    let setup = on(url).env("POSTROOM_POSTGRES_CONNECT_SECONDS", 1);
    let (status, _, stderr) = setup.run();
    assert_eq!(status.code(), Some(1), "{url}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let line: serde_json::Value = serde_json::from_str(&stderr).expect("a line of JSON");
    let message = line["message"].as_str().expect("a text").to_owned();
    assert!(message.starts_with("DATABASE_URL: PostgreSQL ") && !stderr.contains("hunter2"), "{stderr}");
    message
}

pub fn assert_refused(url: &str, why: &str) {
    let message = refusal(url);
    assert!(message.contains(why), "{message}");
}

#[test]
fn a_server_that_is_not_there_or_not_postgresql() {
    let folder = tempfile::tempdir().unwrap();
    assert_refused(
        &format!("postgres://ada:hunter2@/x?host={}", folder.path().display()),
        "error connecting to server",
    );
    // Accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    assert_refused(&format!("postgres://ada:hunter2@{address}/x"), "no connection within 1 s");
    drop(silent);
    assert_refused(&format!("postgres://ada:hunter2@{address}/x"), "Connection refused");
    assert_refused(
        &format!("postgres://ada:hunter2@{address}/x?sslmode=verify-full&sslrootcert=/nowhere/ca.pem"),
        "sslrootcert /nowhere/ca.pem cannot be read",
    );
}

#[test]
fn a_wrong_password_and_the_ways_to_give_the_right_one() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    // The default of servers since version 14.
    sql(
        &url,
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE ada LOGIN PASSWORD 'hunter22'; GRANT CREATE ON SCHEMA public TO ada",
    );
    let rules = cluster.data().join("pg_hba.conf");
    let open = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("local all ada scram-sha-256\n{open}")).unwrap();
    sql(&url, "SELECT pg_reload_conf()");
    assert_refused(&as_user(&url, "ada:hunter2"), "password authentication failed for user \"ada\"");
    assert_refused(&as_user(&url, "ada"), "password");
    on(&as_user(&url, "ada:hunter22")).start().store(&message("m1"));
    let bare = as_user(&url, "ada");
    on(&bare).env("POSTROOM_POSTGRES_PASSWORD", "hunter22").start().store(&message("m2"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let secret = path("secret", "hunter22\n");
    on(&bare).env("POSTROOM_POSTGRES_PASSWORD_FILE", secret).start().store(&message("m3"));
    let pgpass = path("pgpass", "localhost:5432:*:ada:hunter22\n");
    on(&format!("{bare}&passfile={pgpass}")).start().store(&message("m4"));
    let whole = path("url", &as_user(&url, "ada:hunter22"));
    let server = on("").without("DATABASE_URL").env("DATABASE_URL_FILE", whole).start();
    assert_eq!(server.get("/stats").json()["total_messages"], 4);
    let told = server.lines().iter().map(ToString::to_string).collect::<String>();
    assert!(!told.contains("hunter22"), "{told}");
}

#[test]
fn a_password_that_is_rotated_is_read_again_for_each_connection() {
    let Some(cluster) = own_cluster() else { return };
    let url = cluster.database();
    let secret = |password: &str| {
        format!("SET password_encryption = 'scram-sha-256'; ALTER ROLE ada LOGIN PASSWORD '{password}'")
    };
    sql(&url, "CREATE ROLE ada; GRANT CREATE ON SCHEMA public TO ada");
    sql(&url, &secret("hunter22"));
    let rules = cluster.data().join("pg_hba.conf");
    let open = std::fs::read_to_string(&rules).unwrap();
    std::fs::write(&rules, format!("local all ada scram-sha-256\n{open}")).unwrap();
    sql(&url, "SELECT pg_reload_conf()");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bare = as_user(&url, "ada");
    let write = |password: &str| {
        std::fs::write(path("password"), format!("{password}\n")).unwrap();
        std::fs::write(path("url"), as_user(&url, &format!("ada:{password}"))).unwrap();
        std::fs::write(path("pgpass"), format!("*:*:*:ada:{password}\n")).unwrap();
    };
    write("hunter22");
    let named = |name: &str| path(name).display().to_string();
    let toml = path("postroom.toml");
    std::fs::write(&toml, format!("[postgres]\npassword_file = \"{}\"\n", named("password"))).unwrap();
    let servers = [
        on(&bare).env("POSTROOM_POSTGRES_PASSWORD_FILE", named("password")).start(),
        on("").without("DATABASE_URL").env("DATABASE_URL_FILE", named("url")).start(),
        on(&format!("{bare}&passfile={}", named("pgpass"))).start(),
        on(&bare).env("POSTROOM_CONFIG", toml.display()).start(),
    ];
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'ada'";
    for (at, password) in ["hunter23", "hunter24"].iter().enumerate() {
        sql(&url, &secret(password));
        sql(&url, end);
        for server in &servers {
            wait_for_readiness(server, 503);
        }
        write(password);
        for (number, server) in servers.iter().enumerate() {
            wait_for_readiness(server, 200);
            server.store(&message(&format!("m{at}{number}")));
        }
        let told: String = servers.iter().flat_map(Server::lines).map(|line| line.to_string()).collect();
        assert!(told.contains("password authentication failed") && !told.contains(password), "{told}");
    }
}

#[test]
fn databases_that_cannot_be_used() {
    let Some(cluster) = cluster::shared() else { return };
    assert_refused(&cluster.url_of("nowhere"), "database \"nowhere\" does not exist");
    let latin = cluster.database_with("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'");
    assert_refused(&latin, "encoding is LATIN1; UTF8 is needed");
    let ascii = cluster.database_with("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'");
    assert_refused(&ascii, "encoding is SQL_ASCII; UTF8 is needed");
    let foreign = cluster.database();
    sql(&foreign, "CREATE TABLE messages (message_id TEXT PRIMARY KEY); INSERT INTO messages VALUES ('x')");
    assert_refused(&foreign, "a table 'messages' that Postroom did not create");
    let later = cluster.database();
    on(&later).start();
    sql(&later, "UPDATE postroom_schema SET version = 99");
    assert_refused(&later, "schema 99 of a later Postroom");
    let (status, stdout, _) = on(&later).arg("check").run();
    assert!(!status.success() && stdout.contains("newer than this program knows"), "{stdout}");
}

/// A database that finds the functions of a schema, filled by these statements, before those of the server.
fn pretending(cluster: &Cluster, statements: &str) -> String {
    let url = cluster.database();
    sql(&url, &format!("CREATE SCHEMA pretended; SET search_path = pretended, pg_catalog; {statements}"));
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}options=-csearch_path%3Dpretended,pg_catalog,public")
}

/// A database with this `version()`, and without settings.
fn another_engine(cluster: &Cluster, version: &str) -> String {
    let statements = format!(
        "CREATE FUNCTION version() RETURNS text LANGUAGE sql AS $$ SELECT '{version}' $$;
         CREATE FUNCTION current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'unknown function: current_setting()' USING ERRCODE = '42883'; END $$"
    );
    pretending(cluster, &statements)
}

#[test]
fn engines_that_only_speak_the_protocol_are_named() {
    let Some(cluster) = cluster::shared() else { return };
    let cockroach = "CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu, built 2023/09/27, go1.19.10)";
    let yugabyte = "PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu, compiled by clang, 64-bit";
    let redshift = "PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2, Redshift 1.0.12103";
    for (version, told) in [
        (cockroach, "the server is CockroachDB (CockroachDB CCL v23.1.11 (x86_64-pc-linux-gnu): it does not number"),
        (yugabyte, "the server is YugabyteDB (PostgreSQL 15.2-YB-2025.1.0.0-b0 on x86_64-pc-linux-gnu): it does not"),
        (
            redshift,
            "the server is Amazon Redshift (PostgreSQL 8.0.2 on i686-pc-linux-gnu): it does not enforce unique keys",
        ),
        ("OtherDB 7", "the server (OtherDB 7) does not respond like PostgreSQL: unknown function"),
    ] {
        let url = another_engine(cluster, version);
        assert_refused(&url, told);
        for command in ["check", "reindex"] {
            let (status, _, stderr) = on(&url).arg(command).run();
            assert!(status.code() == Some(1) && stderr.contains(told), "{command}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
        }
    }
}

#[test]
fn a_server_that_lacks_a_function_or_is_too_old() {
    let Some(cluster) = cluster::shared() else { return };
    let lacking = pretending(
        cluster,
        "CREATE VIEW pg_proc AS SELECT * FROM pg_catalog.pg_proc WHERE proname NOT LIKE 'pg_snapshot%'",
    );
    assert_refused(&lacking, "lacks pg_snapshot_xmin, pg_snapshot_xmax, which PostgreSQL has from version 13 on");
    let old = pretending(
        cluster,
        "CREATE FUNCTION current_setting(name text) RETURNS text LANGUAGE sql AS $$
             SELECT CASE name WHEN 'server_version_num' THEN '120022' ELSE pg_catalog.current_setting(name) END $$",
    );
    assert_refused(&old, "the server is PostgreSQL 12; 13 or later is needed");
}

#[test]
fn check_says_what_the_server_is_and_what_citus_means() {
    let Some(cluster) = cluster::shared() else { return };
    let url = pretending(
        cluster,
        "CREATE VIEW pg_extension AS SELECT extname, '12.1-1'::text AS extversion FROM
             (SELECT extname FROM pg_catalog.pg_extension UNION SELECT 'citus') AS there",
    );
    let (status, stdout, stderr) = on(&url).arg("check").run();
    assert!(status.success() && stdout.contains("\nserver         PostgreSQL "), "{stdout}{stderr}");
    assert!(stdout.contains("citus          version 12.1-1: connect to the coordinator"), "{stdout}");
    let plain = cluster.database();
    let is_there = sql(&plain, "SELECT count(*) FROM pg_extension WHERE extname = 'citus'") == "1";
    let (_, stdout, _) = on(&plain).arg("check").run();
    assert_eq!(stdout.contains("citus"), is_there, "{stdout}");
}

#[test]
fn tables_that_citus_manages_are_refused() {
    let Some(cluster) = cluster::shared() else { return };
    let url = pretending(
        cluster,
        "CREATE VIEW pg_extension AS SELECT 'citus' AS extname, '12.1-1'::text AS extversion;
         CREATE VIEW pg_dist_partition AS SELECT to_regclass('messages') AS logicalrelid",
    );
    assert_refused(&url, "Citus manages the table messages, and the order of arrival");
    assert_checked(&url, "Citus manages the table messages");
}

/// Asserts that `check` fails with this reason.
fn assert_checked(url: &str, why: &str) {
    let (status, stdout, stderr) = on(url).arg("check").run();
    assert!(status.code() == Some(1) && (stdout.contains(why) || stderr.contains(why)), "{stdout}{stderr}");
}

/// The name of the database in a URL.
fn name_of(url: &str) -> &str {
    url.split(['/', '?']).nth(3).expect("a URL names a database")
}

#[test]
fn settings_of_an_operator_that_keep_a_replica_from_its_work() {
    let Some(cluster) = cluster::shared() else { return };
    for (setting, told) in [
        ("default_transaction_read_only = on", "default_transaction_read_only is on"),
        ("search_path = nowhere", "search_path names no existing schema"),
        (
            "statement_timeout = '1ms'",
            "statement_timeout or transaction_timeout is too short for the queries of a start",
        ),
    ] {
        let url = cluster.database();
        sql(&url, &format!("ALTER DATABASE {} SET {setting}", name_of(&url)));
        assert_refused(&url, told);
        if !setting.starts_with("statement_timeout") {
            assert_checked(&url, told);
        }
    }
}

#[test]
fn a_right_that_is_missing_is_named() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    on(&url).start().store(&message("m1"));
    let role = format!("guest_{}", std::process::id());
    sql(&url, &format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter22'"));
    let as_role = as_user(&url, &format!("{role}:hunter22"));
    assert_refused(&as_role, "permission denied for table postroom_schema");
    let all = format!(
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role};
         GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
         REVOKE UPDATE, DELETE ON messages FROM {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
    );
    sql(&url, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"));
    let told = "the role lacks INSERT on messages, INSERT on postroom_state, INSERT on postroom_buckets and";
    assert_refused(&as_role, told);
    assert_checked(&as_role, told);
    sql(&url, &all);
    for (taken, told) in [
        (format!("REVOKE DELETE ON postroom_runs FROM {role}"), "the role lacks DELETE on postroom_runs; grant"),
        (
            format!("REVOKE USAGE ON SEQUENCE postroom_event_numbers FROM {role}"),
            "lacks USAGE on postroom_event_numbers",
        ),
        ("REVOKE EXECUTE ON FUNCTION postroom_file FROM PUBLIC".to_owned(), "lacks EXECUTE on postroom_file"),
        ("ALTER TABLE messages ENABLE ROW LEVEL SECURITY".to_owned(), "row security hides rows of messages"),
    ] {
        sql(&url, &taken);
        assert_refused(&as_role, told);
        assert_checked(&as_role, told);
        sql(&url, &all);
        sql(&url, "GRANT EXECUTE ON FUNCTION postroom_file TO PUBLIC; ALTER TABLE messages DISABLE ROW LEVEL SECURITY");
    }
    let server = on(&as_role).start();
    server.store(&message("m2"));
    // A privilege that is revoked while the service runs: it is not ready until the privilege returns.
    sql(&url, &format!("REVOKE INSERT ON messages FROM {role}"));
    assert_eq!(server.post(&body(&message("m3"))).status, 503);
    let looked = |server: &Server| server.get("/health/ready").status;
    assert!((0..5).all(|_| looked(&server) == 503), "it does not turn green in between");
    server.wait_for_line(|line| line.to_string().contains("permission denied for table messages (42501)"));
    sql(&url, &format!("GRANT INSERT ON messages TO {role}"));
    wait_for_readiness(&server, 200);
    server.store(&message("m3"));
}

#[test]
fn a_role_needs_no_more_than_create_and_only_once() {
    let Some(cluster) = cluster::shared() else { return };
    let url = cluster.database();
    let role = format!("plain_{}", std::process::id());
    sql(&url, &format!("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE {role} LOGIN PASSWORD 'hunter22'"));
    let as_role = as_user(&url, &format!("{role}:hunter22"));
    assert_refused(&as_role, "the role needs the right to CREATE");
    sql(&url, &format!("GRANT CREATE ON SCHEMA public TO {role}"));
    let server = on(&as_role).start();
    server.store(&message("m1"));
    sql(&url, &format!("REVOKE CREATE ON SCHEMA public FROM {role}"));
    server.kill();
    let server = on(&as_role).start();
    server.store(&message("m1"));
    assert_eq!(server.get("/messages?q=hello").json()["total"], 1);
    assert_eq!(server.get("/health/ready").status, 200);
}

#[test]
fn a_standby_is_told_by_check_and_refused_by_serve() {
    let Some(primary) = own_cluster() else { return };
    let url = primary.database();
    on(&url).start().store(&message("m1"));
    let standby = standby_of(&primary);
    let name = url.split(['/', '?']).nth(3).expect("a URL names a database");
    let there = standby.url_of(name);
    assert_refused(&there, "the server is a standby, which is read-only");
    let (status, stdout, _) = on(&there).arg("check").run();
    assert!(!status.success() && stdout.contains("the server is a standby"), "{stdout}");
    let (_, stdout, _) = on(&url).arg("check").run();
    assert!(stdout.contains("not a promotion: no synchronous standby"), "{stdout}");
    let (status, stdout, _) = on(&url).env("POSTROOM_REQUIRE_SYNC_STANDBY", "true").arg("check").run();
    assert!(!status.success() && stdout.contains("POSTROOM_REQUIRE_SYNC_STANDBY requires one"), "{stdout}");
    // The first of two hosts that accepts writes is used.
    let both = format!(
        "postgres://postroom@/{name}?host={},{}&target_session_attrs=read-write",
        standby.folder().display(),
        primary.folder().display()
    );
    assert_eq!(on(&both).start().get("/stats").json()["total_messages"], 1);
}

/// A standby that streams from a primary.
pub fn standby_of(primary: &Cluster) -> Cluster {
    let standby = Cluster::standby_of(primary.folder().to_str().expect("a plain path"), 5432);
    standby.launch("");
    standby
}
