//! The tables on stdout.

use std::fmt::Write;

use super::figure::Figure;
use super::ingest::{Case, Row};

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
            .expect("a String takes everything");
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
        "Ingest: pace and latency in a closed loop; bytes per message",
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
