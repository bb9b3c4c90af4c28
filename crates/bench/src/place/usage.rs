//! The kernel's data about another process (`proc(5)`): CPU to the nanosecond, memory, written bytes.

use std::fs;
use std::path::Path;

use anyhow::Context;

use runtime::process::TICKS_PER_SECOND;

/// The resource use of a process since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// CPU time of all its threads.
    pub cpu_us: f64,
    /// Bytes that it wrote to disks.
    pub written_bytes: u64,
    /// Resident memory.
    pub resident_mib: f64,
    /// Maximum resident memory.
    pub resident_peak_mib: f64,
}

/// Reads the usage of a process.
pub fn of(pid: u32) -> anyhow::Result<Usage> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).context("the server ended");
    let (status, io) = (read("status")?, read("io")?);
    let number = |text: &str, name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    let mib = |name| number(&status, name).unwrap_or_default() as f64 / 1024.0;
    Ok(Usage {
        cpu_us: cpu_us(Path::new(&format!("/proc/{pid}")))?,
        written_bytes: number(&io, "write_bytes").unwrap_or_default(),
        resident_mib: mib("VmRSS"),
        resident_peak_mib: mib("VmHWM"),
    })
}

/// CPU time of a PostgreSQL server: of its parent process, the children, and ended children.
/// `backend` serves a connection to `database`. None if that is not a process of this machine.
pub fn of_postgres(backend: u32, database: &str) -> Option<f64> {
    let told = fs::read_to_string(format!("/proc/{backend}/cmdline")).ok()?;
    if !told.starts_with("postgres: ") || !told.contains(&format!(" {database} ")) {
        return None;
    }
    let parent = Family::read(backend)?.parent;
    let mut cpu_us = Family::read(parent)?.cpu_us;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        cpu_us += Family::read(pid).filter(|process| process.parent == parent).map_or(0.0, |process| process.cpu_us);
    }
    Some(cpu_us)
}

/// A process and its relations.
struct Family {
    parent: u32,
    /// Its own CPU time and that of ended children.
    cpu_us: f64,
}

impl Family {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The fields follow the name, which may contain any character.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let ticks: f64 = fields.skip(9).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
        Some(Self { parent, cpu_us: ticks * 1e6 / TICKS_PER_SECOND })
    }
}

/// The sum of the scheduler's nanoseconds over the threads. The ticks of `stat` are a hundred per second, too
/// coarse for a short run; they are used if a kernel has no such counts. (Ended threads are missing in the sum; the
/// service's live as long as it does.)
fn cpu_us(process: &Path) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(process.join("task")).context("the server ended")? {
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanoseconds += text.split_ascii_whitespace().next().and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    }
    if nanoseconds > 0.0 {
        return Ok(nanoseconds / 1e3);
    }
    let stat = fs::read_to_string(process.join("stat"))?;
    Ok(runtime::process::cpu_seconds_of(&stat).context("stat cannot be read")? * 1e6)
}
