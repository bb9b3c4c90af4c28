//! The machine of the measurements, as reported by the system.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

use server::telemetry::histogram::Spread;

/// Number of syncs of a page to measure the disk.
const SYNCS: usize = 200;
/// Filesystems in memory: measurements on them are meaningless for durability.
const FORGETFUL: [&str; 2] = ["tmpfs", "ramfs"];

/// The machine of the measurements.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The name of the processor.
    pub processor: String,
    /// Processors that this program may use, in total.
    pub processors: usize,
    /// Memory.
    pub memory_gib: f64,
    /// The kernel's version.
    pub kernel: String,
    /// The filesystem of the working folder.
    pub filesystem: String,
    /// A page appended and synced (`fdatasync`) in the working folder.
    pub fdatasync_p50_ms: f64,
    /// The 99th percentile of the same.
    pub fdatasync_p99_ms: f64,
    /// The load average of the last minute before the benchmark.
    pub load_before: f64,
}

impl Machine {
    /// Reads the properties, and measures the disk below `folder`.
    pub fn look(folder: &Path) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: String, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, value)| value));
            value.unwrap_or("unknown").trim().to_owned()
        };
        let memory_kib = after(read("/proc/meminfo"), "MemTotal");
        let [fdatasync_p50_ms, fdatasync_p99_ms] = fdatasync_ms(folder)?;
        Ok(Self {
            processor: after(read("/proc/cpuinfo"), "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_kib.trim_end_matches(" kB").parse().unwrap_or(0.0) / f64::from(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&read("/proc/self/mounts"), folder),
            fdatasync_p50_ms,
            fdatasync_p99_ms,
            load_before: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        })
    }

    /// Whether nothing in the working folder would survive a power cut.
    pub fn is_forgetful(&self) -> bool {
        FORGETFUL.contains(&self.filesystem.as_str())
    }
}

/// The type of a folder's filesystem: that of the longest mount point above it; of equal ones, the last.
fn filesystem(mounts: &str, folder: &Path) -> String {
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (point, kind) = (fields.next()?, fields.next()?);
        folder.starts_with(point).then_some((point.len(), kind))
    });
    mounted.max_by_key(|(length, _)| *length).map_or("unknown", |(_, kind)| kind).to_owned()
}

fn fdatasync_ms(folder: &Path) -> anyhow::Result<[f64; 2]> {
    let path = folder.join("fdatasync");
    let (mut file, spread) = (File::create(&path)?, Spread::new());
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0x55; 4096])?;
        file.sync_data()?;
        spread.observe(began.elapsed());
    }
    fs::remove_file(&path)?;
    Ok(spread.quantiles([0.5, 0.99]).unwrap_or_default().map(|microseconds| microseconds / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_counts() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/kept xfs rw 0 0\n";
        for (folder, expected) in [("/home/x", "ext4"), ("/tmp/x", "tmpfs"), ("/tmp/kept/x", "xfs"), ("/tmpx", "ext4")]
        {
            assert_eq!(filesystem(mounts, Path::new(folder)), expected);
        }
    }
}
