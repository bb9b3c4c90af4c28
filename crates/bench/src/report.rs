//! The results, as JSON and as tables.

use std::fmt::Write;

use serde::Serialize;

use super::figure::Figure;
use super::place::Machine;
use super::plan::Plan;
use super::sections::ingest::{Case, Row};
use super::sections::latency;
use super::sections::memory::Memory;
use super::sections::overload::Overload;
use super::sections::reads::Reads;
use super::sections::shared::{self, Shared};
use super::sections::startup::Startup;

/// All results, in the form of the JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the measuring program.
    pub version: &'static str,
    /// The machine.
    pub machine: Machine,
    /// The amounts.
    pub plan: Plan,
    /// A section, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Startup>,
    /// A section, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Vec<Row>>,
    /// A section, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Vec<latency::Row>>,
    /// A section, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reads: Option<Reads>,
    /// A section, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// A section, if it was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// The results on PostgreSQL instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<Shared>,
}

impl Report {
    /// A report without sections.
    pub fn new(machine: Machine, plan: Plan) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self {
            version,
            machine,
            plan,
            startup: None,
            ingest: None,
            latency: None,
            reads: None,
            memory: None,
            overload: None,
            shared: None,
        }
    }
}

/// A table: a head, and rows of the same number of cells. The first column is left-aligned, the others right.
pub fn table(title: &str, head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        row.iter().zip(&mut widths).for_each(|(cell, width)| *width = (*width).max(cell.chars().count()));
    }
    let mut text = format!("\n{title}\n");
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (place, (cell, width)) in row.iter().zip(&widths).enumerate() {
            match place {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            }
            .expect("writing to a String cannot fail");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The section on ingest: median (least–most) of the rounds.
pub fn ingest(rows: &[Row]) -> String {
    let show = |figure: &Option<Figure>, digits| figure.map_or("–".to_owned(), |figure| figure.show(digits));
    let cost = rows.iter().map(|row| {
        vec![
            name(row),
            row.requests.to_string(),
            row.unexpected.to_string(),
            row.cpu_us.show(1),
            show(&row.ratio, 2),
            row.cpu_us_caught_up.show(1),
            show(&row.ratio_caught_up, 2),
            show(&row.ratio_to_empty, 2),
        ]
    });
    let pace = rows.iter().map(|row| {
        vec![
            name(row),
            row.per_second.show(0),
            format!("{:.2}", row.p50_ms.median),
            format!("{:.2}", row.p99_ms.median),
            format!("{:.2}", row.p999_ms.median),
            row.max_ms.show(1),
            row.written_bytes.show(0),
            row.file_bytes.map_or("–".to_owned(), |figure| format!("{:.0}", figure.median)),
        ]
    });
    let cost = table(
        "Ingest: CPU of the server per request, median (least–most) of the rounds",
        &[
            "case, connections",
            "requests",
            "unexpected",
            "µs to last answer",
            "× floor",
            "µs caught up",
            "× floor",
            "× empty",
        ],
        &cost.collect::<Vec<_>>(),
    );
    let pace = table(
        "Ingest: rate and latency in a closed loop; bytes per message",
        &["case, connections", "a second", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "written", "in files"],
        &pace.collect::<Vec<_>>(),
    );
    cost + &pace
}

fn name(row: &Row) -> String {
    let case = match row.case {
        Case::Floor => "floor (stores nothing)",
        Case::Empty => "empty database",
        Case::Filled => "filled database",
        Case::Duplicates => "duplicates",
        Case::BadSignatures => "bad signatures",
        Case::FloorBadSignatures => "floor, bad signatures",
    };
    format!("{case}, {}", row.connections)
}

/// The machine, in a line or two.
pub fn machine(machine: &Machine, plan: &Plan) -> String {
    let Machine { processor, processors, memory_gib, kernel, filesystem, .. } = machine;
    format!(
        "postroom {} on {processors} × {processor}, {memory_gib:.0} GiB, Linux {kernel}, {filesystem}; fdatasync p50 {:.2} ms, \
         p99 {:.2} ms; load before {:.1}\n{} messages in the dataset, {} rounds of {} messages\n",
        env!("CARGO_PKG_VERSION"),
        machine.fdatasync_p50_ms,
        machine.fdatasync_p99_ms,
        machine.load_before,
        plan.rows,
        plan.rounds,
        plan.messages,
    )
}

/// The section on starts.
pub fn startup(startup: &Startup) -> String {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let made =
        startup.dataset_rows_per_second.map_or("was there".to_owned(), |rate| format!("{rate:.0} rows a second"));
    let rows = [
        row("dataset made", made),
        row("bytes per message, the original's file", format!("{:.0}", startup.original_bytes)),
        row("bytes per message, upgraded", format!("{:.0}", startup.upgraded_bytes)),
        row("empty database, ready after ms", startup.empty_ready_ms.show(1)),
        row("dataset, first start, ready after ms", format!("{:.0}", startup.first_ready_ms)),
        row("dataset, first start, caught up after ms", format!("{:.0}", startup.first_caught_up_ms)),
        row("CPU seconds for that", format!("{:.1}", startup.first_cpu_seconds)),
        row("dataset, next starts, ready after ms", startup.again_ready_ms.show(1)),
    ];
    table(&format!("Start, with {} messages", startup.rows), &["", ""], &rows)
}

/// The section on latency.
pub fn latency(rows: &[latency::Row]) -> String {
    let row = |row: &latency::Row| {
        let (latency::Row { rate, unexpected, answers, .. }, kind) = (row, if row.filled { "filled" } else { "empty" });
        let mut cells = vec![format!("{kind} database, {rate} a second"), answers.answered.to_string()];
        cells.extend([unexpected.to_string(), format!("{:.0}", answers.per_second)]);
        cells.extend([answers.p50_ms, answers.p99_ms, answers.p999_ms, answers.max_ms].map(|ms| format!("{ms:.2}")));
        cells
    };
    table(
        "Latency at a steady rate (open loop, from when a request was due)",
        &["", "requests", "unexpected", "a second", "p50 ms", "p99 ms", "p99.9 ms", "longest stall ms"],
        &rows.iter().map(row).collect::<Vec<_>>(),
    )
}

/// The section on reads.
pub fn reads(reads: &Reads) -> String {
    let rows = reads.kinds.iter().map(|kind| {
        let mut cells = vec![kind.name.to_owned(), kind.requests.to_string(), kind.unexpected.to_string()];
        cells.extend([kind.p50_ms, kind.p99_ms, kind.max_ms].map(|ms| format!("{ms:.2}")));
        cells.push(kind.goal_p99_ms.map_or("–".to_owned(), |goal| format!("{goal:.0}")));
        cells
    });
    let arrivals = &reads.arrivals;
    let title = format!(
        "Reads, with {} messages, while {:.0} a second arrive (p99 {:.2} ms, {} not stored)",
        reads.rows,
        arrivals.per_second,
        arrivals.p99_ms,
        arrivals.other_than(200)
    );
    table(
        &title,
        &["", "requests", "unexpected", "p50 ms", "p99 ms", "max ms", "goal at 10 M"],
        &rows.collect::<Vec<_>>(),
    )
}

/// Replicas on PostgreSQL.
pub fn shared(shared: &Shared) -> String {
    let show = |figure: &Option<Figure>, digits| figure.map_or("–".to_owned(), |figure| figure.show(digits));
    let row = |row: &shared::Row| {
        let name = match row.case {
            shared::Case::PgbenchBare => "pgbench, key only".to_owned(),
            shared::Case::PgbenchWhole => "pgbench, all indices".to_owned(),
            shared::Case::Sqlite => "one service on SQLite".to_owned(),
            shared::Case::Replicas(1) => "1 replica".to_owned(),
            shared::Case::Replicas(count) => format!("{count} replicas"),
        };
        vec![
            format!("{name}, {}", row.connections),
            row.per_second.show(0),
            show(&row.times_bare, 2),
            show(&row.times_whole, 2),
            show(&row.per_second_caught_up, 0),
            show(&row.replica_cpu_us, 1),
            show(&row.server_cpu_us, 1),
            show(&row.server_cpu_us_caught_up, 1),
            row.p50_ms.map_or("–".to_owned(), |figure| format!("{:.2}", figure.median)),
            row.p99_ms.map_or("–".to_owned(), |figure| format!("{:.2}", figure.median)),
        ]
    };
    let title = format!(
        "Ingest on PostgreSQL {}.{}{}: median (least–most) of the rounds",
        shared.version / 10_000,
        shared.version % 10_000,
        if shared.has_pgbench { "" } else { " (pgbench was not found)" },
    );
    let head = [
        "who, connections",
        "a second",
        "× pgbench, key",
        "× pgbench, all",
        "caught up",
        "µs replica",
        "µs server",
        "caught up",
        "p50 ms",
        "p99 ms",
    ];
    let mut text = String::new();
    if !shared.ingest.is_empty() {
        text += &table(&title, &head, &shared.ingest.iter().map(row).collect::<Vec<_>>());
    }
    if let Some(bytes) = shared.bytes_per_message {
        text += &format!("\n{bytes:.0} bytes a message in the filled database, including all derived data\n");
    }
    shared.reads.iter().for_each(|measured| text += &reads(measured));
    text
}

/// The section on overload.
pub fn overload(overload: &Overload) -> String {
    let Overload { answers, .. } = overload;
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let rows = [
        row("maximum stored per second", format!("{:.0}", overload.capacity_per_second)),
        row("due, a second", format!("{:.0}", overload.offered_per_second)),
        row("stored, a second", format!("{:.0}", overload.stored_per_second)),
        row("stored, in all", answers.those_with(200).to_string()),
        row("refused with 503", overload.refused.to_string()),
        row("unexpected", overload.unexpected.to_string()),
        row("stored, p50 ms", format!("{:.1}", answers.p50_ms_of_200)),
        row("stored, p99 ms", format!("{:.1}", answers.p99_ms_of_200)),
        row("longest ms", format!("{:.1}", answers.max_ms)),
    ];
    let title = format!("Overload: twice what can be stored, over {} connections (open loop)", overload.connections);
    table(&title, &["", ""], &rows)
}

/// The section on memory.
pub fn memory(memory: &Memory) -> String {
    let row = |name: &str, mib: f64, more: String| vec![name.to_owned(), format!("{mib:.0}"), more];
    let beside = format!(
        "{:.0} messages a second ({} not stored), {:.0} searches a second ({} not answered)",
        memory.ingest_per_second, memory.ingest_unexpected, memory.searches_per_second, memory.searches_unexpected
    );
    let rows = [
        row("at rest", memory.idle_mib, String::new()),
        row("most at full ingest", memory.ingest_peak_mib, String::new()),
        row("most with 32 searches at a time too", memory.searches_peak_mib, beside),
        row("afterwards", memory.after_mib, String::new()),
    ];
    table("Memory on the dataset", &["", "MiB", ""], &rows)
}
