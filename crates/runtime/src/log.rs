//! Flat JSON lines on stdout, written by a separate thread so that no request waits for their reader.
//!
//! Lines go through a bounded buffer. When stdout blocks, the buffer fills, further lines are dropped and counted, and
//! ingestion continues. A clean stop writes the buffered lines.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::escape::push_json;
use domain::Moment;

/// Maximum bytes of lines waiting for stdout.
pub const BUFFER_BYTES_MAX: usize = 4 << 20;
/// How long lines are collected for one write. This saves a system call and a wake-up per line.
const LINGER: Duration = Duration::from_millis(10);
/// At this size the writer no longer waits.
const LINGER_BYTES_MAX: usize = 64 << 10;
/// Maximum bytes of a written value: the length of the longest message id. It also limits other values.
const VALUE_BYTES_MAX: usize = 1_024;
/// The same for messages and errors, which combine several values.
const SENTENCE_BYTES_MAX: usize = 4 * VALUE_BYTES_MAX;

/// Levels, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Details for a developer.
    Debug,
    /// Normal operation.
    Info,
    /// A handled problem.
    Warning,
    /// An operator should look.
    Error,
    /// The service cannot continue.
    Critical,
}

impl LogLevel {
    /// The spelling of log lines and `LOG_LEVEL`.
    pub fn name(self) -> &'static str {
        match self {
            LogLevel::Debug => "DEBUG",
            LogLevel::Info => "INFO",
            LogLevel::Warning => "WARNING",
            LogLevel::Error => "ERROR",
            LogLevel::Critical => "CRITICAL",
        }
    }
}

static SINK: OnceLock<Sink> = OnceLock::new();

struct Sink {
    least: LogLevel,
    buffer: Mutex<Buffer>,
    /// Signals lines to write, many bytes to write, or the stop.
    filled: Condvar,
    /// Signals that everything is written.
    drained: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    /// The writer sleeps and must be woken for the next line.
    asleep: bool,
    /// The writer has lines that are not written yet.
    writing: bool,
    stopping: bool,
}

impl Sink {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The thread that writes the lines.
pub struct LogWriter(JoinHandle<()>);

/// Starts writing lines of `least` and above. Without this call, as in some commands, lines are dropped.
pub fn start(least: LogLevel) -> LogWriter {
    let sink = SINK.get_or_init(|| Sink {
        least,
        buffer: Mutex::default(),
        filled: Condvar::new(),
        drained: Condvar::new(),
        dropped: AtomicU64::new(0),
    });
    let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(sink));
    LogWriter(thread.expect("the system has a thread for the log"))
}

impl LogWriter {
    /// Writes the buffered lines and ends the thread. If stdout blocks, it stops waiting after `patience`.
    pub fn stop(self, patience: Duration) {
        let Some(sink) = SINK.get() else { return };
        let deadline = Instant::now() + patience;
        let mut buffer = sink.lock();
        buffer.stopping = true;
        sink.filled.notify_all();
        while buffer.writing || !buffer.bytes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            buffer = sink.drained.wait_timeout(buffer, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        drop(buffer);
        let _ = self.0.join();
    }
}

fn write_lines(sink: &Sink) {
    let mut batch = Vec::new();
    loop {
        let mut buffer = sink.lock();
        while buffer.bytes.is_empty() {
            buffer.writing = false;
            sink.drained.notify_all();
            if buffer.stopping {
                return;
            }
            buffer.asleep = true;
            buffer = sink.filled.wait(buffer).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if !buffer.stopping && buffer.bytes.len() < LINGER_BYTES_MAX {
            buffer.asleep = false;
            let until = |buffer: &mut Buffer| !buffer.stopping && buffer.bytes.len() < LINGER_BYTES_MAX;
            let waited = sink.filled.wait_timeout_while(buffer, LINGER, until);
            buffer = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        std::mem::swap(&mut buffer.bytes, &mut batch);
        let lines = std::mem::take(&mut buffer.lines);
        buffer.writing = true;
        drop(buffer);
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(&batch).and_then(|()| stdout.flush()).is_err() {
            sink.dropped.fetch_add(lines, Ordering::Relaxed);
        }
        batch.clear();
    }
}

/// Number of dropped lines.
pub fn dropped_lines() -> u64 {
    SINK.get().map_or(0, |sink| sink.dropped.load(Ordering::Relaxed))
}

/// A line with `message`. Add fields, then `emit`. Below the least level it writes nothing and costs nothing.
pub fn line(level: LogLevel, message: &str) -> Line {
    line_at(level, Moment::now(), message)
}

/// The same as `line`, at a time that the caller has already read.
pub fn line_at(level: LogLevel, now: Moment, message: &str) -> Line {
    let wanted = SINK.get().is_some_and(|sink| level >= sink.least);
    let mut line = Line(wanted.then(|| String::with_capacity(384)));
    if let Line(Some(out)) = &mut line {
        out.push_str("{\"ts\":\"");
        now.write_iso_millis(out);
        let _ = write!(out, "\",\"level\":\"{}\"", level.name());
    }
    line.sentence("message", message)
}

/// The shown part of a value: all of it, or its beginning and its length.
pub fn shown(value: &str) -> Cow<'_, str> {
    cut(value, VALUE_BYTES_MAX)
}

fn cut(value: &str, bytes_max: usize) -> Cow<'_, str> {
    if value.len() <= bytes_max {
        return Cow::Borrowed(value);
    }
    let beginning = &value[..value.floor_char_boundary(bytes_max)];
    Cow::Owned(format!("{beginning}… ({} bytes)", value.len()))
}

/// `line` at INFO: normal operation.
pub fn info(message: &str) -> Line {
    line(LogLevel::Info, message)
}

/// `line` at WARNING: a handled problem.
pub fn warning(message: &str) -> Line {
    line(LogLevel::Warning, message)
}

/// `line` at ERROR: an operator should look.
pub fn error(message: &str) -> Line {
    line(LogLevel::Error, message)
}

/// A line under construction. Field names are ours and need no escaping. Values come from outside: long
/// values are cut, and all are escaped.
#[must_use = "a line is written by `emit`"]
pub struct Line(Option<String>);

impl Line {
    /// A string field.
    pub fn text(self, name: &str, value: &str) -> Self {
        self.cut_text(name, value, VALUE_BYTES_MAX)
    }

    /// A string field that combines several values.
    fn sentence(self, name: &str, value: &str) -> Self {
        self.cut_text(name, value, SENTENCE_BYTES_MAX)
    }

    fn cut_text(mut self, name: &str, value: &str, bytes_max: usize) -> Self {
        if let Some(out) = &mut self.0 {
            push_name(out, name);
            push_json(out, &cut(value, bytes_max));
        }
        self
    }

    /// A string field, if it has a value.
    pub fn text_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// A number or a Boolean.
    pub fn value(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        if let Some(out) = &mut self.0 {
            push_name(out, name);
            let _ = write!(out, "{value}");
        }
        self
    }

    /// An error with all its causes, as one string.
    pub fn cause(self, error: &dyn std::error::Error) -> Self {
        let mut chain = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            let _ = write!(chain, ": {cause}");
            next = cause.source();
        }
        self.sentence("error", &chain)
    }

    /// Passes the line to the writer, or drops it when the buffer is full.
    pub fn emit(self) {
        let (Some(mut line), Some(sink)) = (self.0, SINK.get()) else { return };
        line.push_str("}\n");
        let mut buffer = sink.lock();
        if buffer.bytes.len() + line.len() > BUFFER_BYTES_MAX {
            drop(buffer);
            sink.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        buffer.bytes.extend_from_slice(line.as_bytes());
        buffer.lines += 1;
        if buffer.asleep || buffer.bytes.len() >= LINGER_BYTES_MAX {
            buffer.asleep = false;
            drop(buffer);
            sink.filled.notify_one();
        }
    }
}

/// It does not use formatting: every request writes ten names, and formatting costs three times as much.
fn push_name(out: &mut String, name: &str) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

/// Writes panics as JSON lines on stderr and counts them. The default hook would print text and a trace.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("panic");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        write_to_stderr(LogLevel::Critical, "panic", &[("error", message), ("place", &place)]);
    }));
}

/// One line on stderr, at once: for refusals to start, and for panics.
pub fn write_to_stderr(level: LogLevel, message: &str, fields: &[(&str, &str)]) {
    let mut out = String::from("{\"ts\":\"");
    Moment::now().write_iso_millis(&mut out);
    let _ = write!(out, "\",\"level\":\"{}\",\"message\":", level.name());
    push_json(&mut out, &cut(message, SENTENCE_BYTES_MAX));
    for (name, value) in fields {
        let _ = write!(out, ",\"{name}\":");
        push_json(&mut out, &cut(value, SENTENCE_BYTES_MAX));
    }
    out.push_str("}\n");
    let _ = std::io::stderr().write_all(out.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_within_no_character_and_once() {
        let whole = "é".repeat(VALUE_BYTES_MAX / 2);
        assert_eq!(shown(&whole), whole);
        let longer = format!("x{whole}");
        let expected = format!("x{}… (1025 bytes)", "é".repeat(VALUE_BYTES_MAX / 2 - 1));
        assert_eq!(shown(&longer), expected);
        let message = format!("{} {} 404", shown(&longer), shown(&longer));
        assert_eq!(cut(&message, SENTENCE_BYTES_MAX), message, "what was cut is not cut again");
    }
}
