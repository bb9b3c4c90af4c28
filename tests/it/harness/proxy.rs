//! A small proxy between the program and PostgreSQL, which breaks connections at chosen moments.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The delay of each response of a slow server.
const SLOWNESS: Duration = Duration::from_millis(100);

/// How the proxy treats bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards them.
    Pass,
    /// Forwards an insertion to the server, but cuts the connection instead of forwarding the response.
    CutAnswers,
    /// The same for a commit of provider data, which has its own round trip.
    CutCommits,
    /// Forwards nothing and keeps connections open.
    Stall,
    /// The same for connections that are open already; new ones work.
    StallOld,
    /// Ends new connections at once, and old ones at their next bytes.
    Refuse,
    /// Forwards each response after a delay, like an overloaded server.
    Slow,
}

/// A proxy on a port of its own.
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    cuts: AtomicUsize,
    connections: AtomicUsize,
    /// The number of connections that count as old.
    old: AtomicUsize,
}

impl Proxy {
    /// Forwards connections to the server whose socket is in `folder`.
    pub fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Shared {
            mode: Mutex::new(Mode::Pass),
            changed: Condvar::new(),
            cuts: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            old: AtomicUsize::new(0),
        };
        let shared = Arc::new(shared);
        let (socket, state) = (folder.join(".s.PGSQL.5432"), Arc::clone(&shared));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = state.connections.fetch_add(1, Ordering::SeqCst);
                let way = Way { number, shared: Arc::clone(&state) };
                let socket = socket.clone();
                std::thread::spawn(move || carry(client, socket, &way));
            }
        });
        Self { address, shared }
    }

    pub fn set(&self, mode: Mode) {
        let mut now = self.shared.mode.lock().unwrap();
        self.shared.old.store(self.connections(), Ordering::SeqCst);
        *now = mode;
        drop(now);
        self.shared.changed.notify_all();
    }

    /// The number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The number of cut connections so far.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

/// One connection.
#[derive(Clone)]
struct Way {
    number: usize,
    shared: Arc<Shared>,
}

impl Way {
    /// Waits while the proxy stalls; returns the mode.
    fn mode(&self) -> Mode {
        let mut mode = self.shared.mode.lock().unwrap();
        let is_old = || self.number < self.shared.old.load(Ordering::SeqCst);
        while *mode == Mode::Stall || *mode == Mode::StallOld && is_old() {
            mode = self.shared.changed.wait(mode).unwrap();
        }
        *mode
    }
}

/// Forwards bytes in both directions until one side ends.
fn carry(client: TcpStream, socket: PathBuf, way: &Way) {
    if way.mode() == Mode::Refuse {
        return;
    }
    let Ok(server) = UnixStream::connect(socket) else { return };
    let wrote = Arc::new(AtomicBool::new(false));
    let up = {
        let (mut client, mut server) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
        let (way, wrote) = (way.clone(), Arc::clone(&wrote));
        std::thread::spawn(move || {
            let mut bytes = [0; 1 << 16];
            while let Ok(count @ 1..) = client.read(&mut bytes) {
                let awaited: &[u8] = match way.mode() {
                    Mode::CutAnswers => b"postroom_file",
                    Mode::CutCommits => b"postroom_bring",
                    Mode::Refuse => break,
                    Mode::Pass | Mode::Stall | Mode::StallOld | Mode::Slow => b"",
                };
                if !awaited.is_empty() && holds(&bytes[..count], awaited) {
                    wrote.store(true, Ordering::SeqCst);
                }
                if server.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = server.shutdown(Shutdown::Both);
        })
    };
    let (mut from, mut to) = (server, client);
    let mut bytes = [0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let mode = way.mode();
        if mode == Mode::Slow {
            std::thread::sleep(SLOWNESS);
        }
        // The server responds after the commit, so the commit has happened.
        let is_told = mode != Mode::CutCommits || holds(&bytes[..count], b"COMMIT\0");
        if is_told && wrote.swap(false, Ordering::SeqCst) {
            way.shared.cuts.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    let _ = up.join();
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
