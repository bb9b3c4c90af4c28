//! `postroom copy`: every message of one database into another, then a comparison.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::arguments::{Given, url};
use server::config::{Inputs, store_of};
use store::copy::{Copied, Phase, Summary, copy};

/// Interval of progress lines without a terminal.
const TELL_INTERVAL: Duration = Duration::from_secs(5);
/// Maximum differing days that are listed.
const DAYS_TOLD_MAX: usize = 20;

/// Copies all messages from one database to another, SQLite or PostgreSQL, and compares them afterwards.
///
/// Services may run on both. An interrupted copy continues where it stopped; a repeated one copies the newer messages.
/// Existing ids of the target stay. Provider data are copied too: details, statuses, events and raw bodies, all of them
/// read each time. Exits 1 if anything differs or could not be copied.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where to read: a URL as for DATABASE_URL [default: POSTROOM_COPY_FROM, or the file that POSTROOM_COPY_FROM_FILE
    /// names, which keep a password out of the list of processes]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Where to write [default: POSTROOM_COPY_TO, or the file that POSTROOM_COPY_TO_FILE names]
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Start from the beginning, whatever was copied before
    #[arg(long)]
    from_start: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Copies and prints what was copied and compared.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let inputs = Inputs::of_environment()?;
    let store = |flag: &Option<String>, name, variable| match url(&inputs, flag.as_deref(), name, variable)? {
        Given::Flag(url) => anyhow::Ok(store_of(&inputs, &url, name)?),
        Given::Environment(url) => Ok(store_of(&inputs, &url, variable)?),
    };
    let from = store(&arguments.from, "--from", "POSTROOM_COPY_FROM")?;
    let to = store(&arguments.to, "--to", "POSTROOM_COPY_TO")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut progress = Progress::new();
    let started = Instant::now();
    let place = format!("{} to {}", from.database, to.database);
    let summary = runtime
        .block_on(copy(&from, &to, arguments.from_start, |phase, done, all| progress.tell(phase, done, all)))
        .with_context(|| format!("copying {place} stopped; run the command again to continue"))?;
    progress.bar.finish_and_clear();
    if arguments.json {
        tell_json(&summary, started.elapsed())?;
    } else {
        tell(&place, &summary, started.elapsed())?;
    }
    let complete = summary.odd.0 == 0 && summary.agrees();
    Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    bar: ProgressBar,
    phase: Option<Phase>,
    told: Instant,
    on_terminal: bool,
}

impl Progress {
    fn new() -> Self {
        let template = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
        let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(template).expect("a valid template"));
        Self { bar, phase: None, told: Instant::now(), on_terminal: std::io::stderr().is_terminal() }
    }

    fn tell(&mut self, phase: Phase, done: u64, all: u64) {
        let name = match phase {
            Phase::Copying => "copying",
            Phase::Details => "details",
            Phase::Verifying => "verifying",
        };
        if self.phase.replace(phase) != Some(phase) {
            self.bar.reset();
            self.bar.set_message(name);
        }
        self.bar.set_length(all);
        self.bar.set_position(done);
        if !self.on_terminal && self.told.elapsed() >= TELL_INTERVAL {
            self.told = Instant::now();
            tell!("{name}: {done} of {all}, {:.0}/s, {} s left", self.bar.per_sec(), self.bar.eta().as_secs());
        }
    }
}

fn tell(place: &str, summary: &Summary, elapsed: Duration) -> anyhow::Result<()> {
    let Summary { read, created, .. } = summary;
    say!("copied         {place}: {read} read, {created} new, in {:.1} s", elapsed.as_secs_f64())?;
    let (odd, some) = &summary.odd;
    if *odd > 0 {
        say!("not copied     {odd} rows that are not text, such as {}", some.join(", "))?;
    }
    let whole = summary.tally.whole();
    say!(
        "compared       {} messages of {} days, all values: source {:016x}, target {:016x}",
        whole.source_messages,
        summary.tally.days.len(),
        whole.source_sum,
        whole.target_sum
    )?;
    for (name, day) in summary.tally.days.iter().filter(|(_, day)| !day.agrees()).take(DAYS_TOLD_MAX) {
        say!(
            "differs        {name}: source {} messages {:016x}, target {} messages {:016x}",
            day.source_messages,
            day.source_sum,
            day.target_messages,
            day.target_sum
        )?;
    }
    for (sort, Copied { created, compared }) in &summary.beside {
        say!(
            "{:<14} {} compared, all values, {created} new: source {:016x}, target {} with {:016x}",
            sort.name(),
            compared.source_messages,
            compared.source_sum,
            compared.target_messages,
            compared.target_sum
        )?;
    }
    say!("{}", if summary.agrees() { "equal          yes" } else { "equal          no" })?;
    Ok(())
}

fn tell_json(summary: &Summary, elapsed: Duration) -> anyhow::Result<()> {
    let days = summary.tally.days.iter().map(|(name, day)| {
        json!({
            "day": name,
            "source_messages": day.source_messages,
            "target_messages": day.target_messages,
            "source_sum": format!("{:016x}", day.source_sum),
            "target_sum": format!("{:016x}", day.target_sum),
        })
    });
    let beside: serde_json::Map<_, _> = summary
        .beside
        .iter()
        .map(|(sort, Copied { created, compared })| {
            let told = json!({
                "source": compared.source_messages,
                "target": compared.target_messages,
                "created": created,
                "equal": compared.agrees(),
            });
            (sort.name().to_owned(), told)
        })
        .collect();
    let report = json!({
        "read": summary.read,
        "created": summary.created,
        "not_copied": summary.odd.0,
        "beside": beside,
        "equal": summary.agrees(),
        "elapsed_seconds": elapsed.as_secs_f64(),
        "days": days.collect::<Vec<_>>(),
    });
    say!("{report}")?;
    Ok(())
}
