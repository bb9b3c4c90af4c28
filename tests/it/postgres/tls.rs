//! TLS to a real server, with a test authority.

use std::net::TcpListener;
use std::path::Path;

use super::refusals::assert_refused;
use super::{on, own_cluster};
use crate::harness::cluster::{Cluster, sql};
use crate::harness::{message, wait_until};

/// Runs OpenSSL as the server's user, in the cluster's folder. Returns whether it is installed.
fn openssl(cluster: &Cluster, arguments: &str) -> bool {
    let folder = cluster.folder();
    let mut command = cluster.unprivileged("openssl");
    let Ok(output) = command.args(arguments.split(' ')).current_dir(folder).output() else { return false };
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Creates an authority, and a certificate signed by it for one address.
fn make_certificates(cluster: &Cluster) -> bool {
    let path = |name: &str| cluster.folder().join(name);
    let authority = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -addext \
                     keyUsage=critical,keyCertSign -subj";
    if std::process::Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: OpenSSL is not installed (Debian: apt-get install openssl)");
        return false;
    }
    std::fs::write(path("names"), "subjectAltName = IP:127.0.0.1\n").unwrap();
    for name in ["ca", "other"] {
        openssl(cluster, &format!("{authority} /CN={name} -keyout {name}.key -out {name}.pem"));
    }
    openssl(
        cluster,
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server -keyout server.key -out server.csr",
    );
    openssl(
        cluster,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    )
}

/// Restarts the cluster with TLS, this certificate and key, and these rules. Returns its port.
fn serve_with(cluster: &Cluster, name: &str, rules: &str) -> u16 {
    let folder = cluster.folder().display().to_string();
    std::fs::write(cluster.data().join("pg_hba.conf"), format!("local all all trust\n{rules}\n")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.halt("fast");
    cluster.launch(&format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -c ssl_cert_file={folder}/{name}.pem \
         -c ssl_key_file={folder}/{name}.key"
    ));
    port
}

/// Asserts that a replica serves there, with or without TLS, and that the server's own client connects.
fn assert_serves(cluster: &Cluster, url: &str, encrypted: bool) {
    let own = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(sql(url, own), if encrypted { "t" } else { "f" }, "psql at {url}");
    let server = on(url).start();
    server.store(&message("m1"));
    let all =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'postroom'";
    let port = url.split(':').nth(3).and_then(|rest| rest.split('/').next()).expect("a port");
    // Connections of the previous replica may still be open.
    let wanted = if encrypted { "t" } else { "f" };
    let own = format!("{}&port={port}", cluster.url());
    wait_until(&format!("all connections are so: {url}"), || (sql(&own, all) == wanted).then_some(()));
}

#[test]
fn certificates_of_the_first_version_and_of_their_own_making() {
    let Some(cluster) = own_cluster() else { return };
    if !make_certificates(&cluster) {
        return;
    }
    // Without extensions, with both types of key; and a self-signed one.
    openssl(&cluster, "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out first.pem");
    openssl(&cluster, "req -new -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout rsa.key -out rsa.csr");
    openssl(&cluster, "x509 -req -in rsa.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out rsa.pem");
    openssl(&cluster, "x509 -req -in rsa.csr -signkey rsa.key -days 2 -out alone.pem");
    openssl(
        &cluster,
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout self.key -out self.pem",
    );
    for (key, name) in [("server", "first"), ("rsa", "alone")] {
        assert!(
            cluster
                .unprivileged("cp")
                .arg("-p")
                .args([format!("{key}.key"), format!("{name}.key")])
                .current_dir(cluster.folder())
                .status()
                .unwrap()
                .success()
        );
    }
    let trusting = |name: &str| format!("sslrootcert={}", cluster.folder().join(name).display());
    let (ca, other) = (trusting("ca.pem"), trusting("other.pem"));
    for (name, root, protocol) in [
        ("first", &ca, ""),
        ("rsa", &ca, "-c ssl_max_protocol_version=TLSv1.2"),
        ("alone", &trusting("alone.pem"), ""),
        ("self", &trusting("self.pem"), ""),
    ] {
        let rule = "hostssl all all 127.0.0.1/32 trust";
        let port = serve_with(&cluster, name, rule);
        if !protocol.is_empty() {
            sql(&format!("{}&port={port}", cluster.url()), "ALTER SYSTEM SET ssl_max_protocol_version = 'TLSv1.2'");
            sql(&format!("{}&port={port}", cluster.url()), "SELECT pg_reload_conf()");
        }
        let url = |parameters: &str| format!("postgres://postroom:hunter2@127.0.0.1:{port}/postgres?{parameters}");
        for parameters in ["", "sslmode=prefer", "sslmode=allow", "sslmode=require"] {
            assert_serves(&cluster, &url(parameters), true);
        }
        assert_serves(&cluster, &url(&format!("sslmode=verify-ca&{root}")), true);
        assert_serves(&cluster, &url(&format!("sslmode=require&{root}")), true);
        assert_serves(&cluster, &url(root), true);
        for parameters in [
            format!("sslmode=verify-ca&{other}"),
            format!("sslmode=verify-full&{other}"),
            format!("sslmode=require&{other}"),
        ] {
            assert_refused(&url(&parameters), "invalid peer certificate");
        }
        let full = url(&format!("sslmode=verify-full&{root}"));
        match name {
            "self" => {
                assert_serves(&cluster, &full, true);
                assert_refused(&full.replace("127.0.0.1", "localhost"), "not valid for name");
            }
            // It contains host names only in its subject, which is not trusted.
            _ => assert_refused(&full, "X.509 version 1, which names no hosts"),
        }
    }
}

#[test]
fn prefer_and_allow_take_what_the_server_will_have() {
    let Some(cluster) = own_cluster() else { return };
    if !make_certificates(&cluster) {
        return;
    }
    for (rule, encrypted) in
        [("hostnossl all all 127.0.0.1/32 trust", false), ("hostssl all all 127.0.0.1/32 trust", true)]
    {
        let port = serve_with(&cluster, "server", rule);
        let url = |mode: &str| format!("postgres://postroom:hunter2@127.0.0.1:{port}/postgres{mode}");
        for mode in ["", "?sslmode=prefer", "?sslmode=allow"] {
            assert_serves(&cluster, &url(mode), encrypted);
        }
        let fixed = if encrypted { "?sslmode=disable" } else { "?sslmode=require" };
        assert_refused(&url(fixed), "no pg_hba.conf entry");
    }
    let port = serve_with(&cluster, "server", "host all all 127.0.0.1/32 trust");
    let url = |mode: &str| format!("postgres://postroom:hunter2@127.0.0.1:{port}/postgres?sslmode={mode}");
    assert_serves(&cluster, &url("allow"), false);
    assert_serves(&cluster, &url("prefer"), true);
}

#[test]
fn the_server_is_proved_as_far_as_was_asked_for() {
    let Some(cluster) = own_cluster() else { return };
    if !make_certificates(&cluster) {
        return;
    }
    let folder = cluster.folder().display().to_string();
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";
    std::fs::write(cluster.data().join("pg_hba.conf"), rules).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.halt("fast");
    cluster.launch(&format!(
        "-c listen_addresses=127.0.0.1 -c port={port} -c ssl=on -c ssl_cert_file={folder}/server.pem \
         -c ssl_key_file={folder}/server.key"
    ));
    let local = format!("{}&port={port}", cluster.url());
    let url = |host: &str, parameters: &str| format!("postgres://postroom:hunter2@{host}:{port}/postgres?{parameters}");
    let trusting = |name: &str| format!("sslrootcert={}", Path::new(&folder).join(name).display());
    let (ca, other) = (trusting("ca.pem"), trusting("other.pem"));
    let believed = [
        url("127.0.0.1", &format!("sslmode=verify-full&{ca}")),
        url("localhost", &format!("sslmode=verify-ca&{ca}")),
        url("127.0.0.1", "sslmode=require"),
    ];
    for (at, url) in believed.iter().enumerate() {
        let server = on(url).start();
        server.store(&message(&format!("m{at}")));
        let encrypted = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                         WHERE application_name = 'postroom'";
        assert_eq!(sql(&local, encrypted), "t", "{url}");
        assert_eq!(server.get("/messages").json()["total"], at + 1);
    }
    assert_refused(&url("localhost", &format!("sslmode=verify-full&{ca}")), "not valid for name");
    assert_refused(&url("127.0.0.1", &format!("sslmode=verify-full&{other}")), "invalid peer certificate");
    assert_refused(&url("127.0.0.1", &format!("sslmode=verify-ca&{other}")), "invalid peer certificate");
    assert_refused(&url("127.0.0.1", "sslmode=verify-full"), "invalid peer certificate");
    assert_refused(&url("127.0.0.1", "sslmode=disable"), "no pg_hba.conf entry");
}
