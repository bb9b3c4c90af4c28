//! The kernel's data about this process (`proc(5)`), and returning memory to it.

use std::fs;

use rustix::process::{Resource, Rlimit, setrlimit};

/// The unit of CPU time. User space sees a hundred per second on every architecture that we build for.
pub const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time so far.
pub fn cpu_seconds() -> Option<f64> {
    cpu_seconds_of(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// The same, from the text of any process's `stat`.
pub fn cpu_seconds_of(stat: &str) -> Option<f64> {
    // The second field is the name in parentheses and may contain spaces. Later fields contain none.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Resident memory.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Open file descriptors.
pub fn open_fds() -> Option<u64> {
    // Reading the folder opens one more descriptor.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64)
}

/// How many files may be open at once: the soft and the hard limit; none if unknown or unlimited.
pub fn open_file_limits() -> Option<(u64, u64)> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let mut numbers = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_ascii_whitespace();
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Raises the soft limit of open files to the hard one, and returns the resulting limit; none if there is none.
pub fn raise_open_file_limit() -> Option<u64> {
    let (soft, hard) = open_file_limits()?;
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(hard), maximum: Some(hard) }).is_ok();
    Some(if raised { hard } else { soft })
}

/// Returns freed memory of this thread to the system. Code that sometimes needs tens of megabytes calls it
/// afterwards, because the allocator would keep the memory for the thread.
pub fn give_back_memory() {
    // A fuzzer's allocator monitors memory. Linking our allocator would replace it.
    #[cfg(not(fuzzing))]
    // SAFETY: the function takes no pointer, may be called by any thread at any time, and frees only what is free
    // already.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_running_process_uses_something_of_everything() {
        assert!(super::cpu_seconds().unwrap() >= 0.0);
        assert!(super::resident_bytes().unwrap() > 100_000);
        assert!(super::open_fds().unwrap() >= 3);
        let (soft, hard) = super::open_file_limits().unwrap();
        assert!(soft <= hard && hard > 16);
    }
}
