//! TLS to a real server, with an authority of the test's own.

use std::net::TcpListener;
use std::path::Path;

use super::refusals::assert_refused;
use super::{on, own_cluster};
use crate::harness::cluster::{Cluster, sql};
use crate::harness::message;

/// Runs OpenSSL as the server's user, in the cluster's folder; whether it is installed.
fn openssl(cluster: &Cluster, arguments: &str) -> bool {
    let folder = cluster.folder();
    let mut command = cluster.unprivileged("openssl");
    let Ok(output) = command.args(arguments.split(' ')).current_dir(folder).output() else { return false };
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// An authority, and a certificate by it for one address.
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
