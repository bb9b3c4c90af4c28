//! A real proxy in front of the program, with the shipped or documented configuration for it.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Running, wait_until};

/// A proxy that many operators have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Caddy,
    Nginx,
    HaProxy,
    /// With the check that HAProxy makes for `option httpchk` alone, and its own statistics page.
    HaProxyDefaultCheck,
}

/// A proxy, running.
pub struct Front {
    pub address: SocketAddr,
    running: Running,
    folder: TempDir,
}

impl Kind {
    fn program(self) -> &'static str {
        match self {
            Self::Caddy => "caddy",
            Self::Nginx => "nginx",
            Self::HaProxy | Self::HaProxyDefaultCheck => "haproxy",
        }
    }

    /// The project's configuration for operators, with the addresses of this test and without TLS.
    fn configuration(self, listen: SocketAddr, upstream: SocketAddr, folder: &Path) -> String {
        let upstream = upstream.to_string();
        match self {
            Self::Caddy => {
                let site = shipped("deploy/caddy/Caddyfile")
                    .replace("127.0.0.1:8000", &upstream)
                    .replace("\ninbox.example.com {", &format!("\n:{} {{\n\tbind 127.0.0.1", listen.port()));
                format!("{{\n\tadmin off\n\tauto_https off\n}}\n{site}")
            }
            Self::Nginx => nginx(listen, &upstream, folder),
            Self::HaProxyDefaultCheck => format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
                 frontend inbox\n bind {listen}\n stats enable\n stats uri /haproxy\n default_backend postroom\n\
                 backend postroom\n option httpchk\n server postroom {upstream} check inter 100ms\n"
            ),
            Self::HaProxy => {
                let document = shipped("DEPLOYMENT.md");
                let block = document.split("```haproxy\n").nth(1).and_then(|rest| rest.split("```").next());
                let bind = "bind :443 ssl crt /etc/haproxy/inbox.example.com.pem";
                let block = block.expect("a block for HAProxy");
                assert!(block.contains(bind) && block.contains("127.0.0.1:8000"), "{block}");
                block.replace(bind, &format!("bind {listen}")).replace("127.0.0.1:8000", &upstream)
            }
        }
    }

    fn command(self, file: &Path) -> Command {
        let mut command = Command::new(self.program());
        match self {
            Self::Caddy => command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file),
            Self::Nginx => command.arg("-c").arg(file),
            Self::HaProxy | Self::HaProxyDefaultCheck => command.args(["-db", "-f"]).arg(file),
        };
        command
    }
}

fn shipped(path: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The upstream and the second server of the shipped file, in one process without system privileges.
fn nginx(listen: SocketAddr, upstream: &str, folder: &Path) -> String {
    let shipped = shipped("deploy/nginx/postroom.conf");
    let (upstreams, servers) = shipped.split_once("\nserver {").expect("servers");
    let (_, tls) = servers.split_once("\nserver {").expect("the server with TLS");
    let lines = tls.lines().filter(|line| !["listen ", "ssl_"].iter().any(|word| line.trim().starts_with(word)));
    let server = lines.collect::<Vec<_>>().join("\n");
    let folder = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|what| format!("{what}_temp_path {folder}/{what};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{paths}{}\nserver {{\nlisten {listen};\n{server}\n}}\n",
        upstreams.replace("127.0.0.1:8000", upstream)
    )
}

impl Front {
    /// Starts the proxy in front of a server; none, with the reason printed, if it is not installed.
    pub fn start(kind: Kind, upstream: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let listen = |file: &str| {
            let address = free_address();
            let path = folder.path().join(file);
            std::fs::write(&path, kind.configuration(address, upstream, folder.path())).expect("it can be written");
            (address, path)
        };
        let (address, file) = listen("proxy.conf");
        let mut command = kind.command(&file);
        let log =
            || std::fs::File::options().create(true).append(true).open(folder.path().join("log")).expect("a file");
        command.env("HOME", folder.path()).stdout(log()).stderr(log());
        if !is_installed(kind.program()) {
            println!("skipped: {} is not installed", kind.program());
            return None;
        }
        let mut front = Self { address, running: Running::spawn(&mut command), folder };
        wait_until("the proxy listens", || {
            assert!(!front.running.has_ended(), "{} ended: {}", kind.program(), front.log());
            TcpStream::connect(address).ok()
        });
        Some(front)
    }

    /// The output of the proxy.
    pub fn log(&self) -> String {
        let read = |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("log") + &read("error.log")
    }
}

/// Whether a program is installed.
pub fn is_installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Whether the runtime of another language works, checked by its version; prints a line if not.
pub fn has_runtime(program: &str, argument: &str) -> bool {
    let asked = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_there = asked.is_ok_and(|status| status.success());
    if !is_there {
        println!("skipped: {program} is not installed");
    }
    is_there
}

/// An address that was free just now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
