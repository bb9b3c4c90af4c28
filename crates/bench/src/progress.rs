//! The progress of the benchmark, on stderr: a bar on a terminal, a line per step elsewhere.

use runtime::terminal::tell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Interval of redrawing the bar.
const TICK: Duration = Duration::from_millis(250);

/// Shows the progress to a person.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    on_terminal: bool,
}

impl Progress {
    /// A spinner, until a length is known.
    pub fn new() -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {elapsed_precise} {msg}"));
        if on_terminal {
            bar.enable_steady_tick(TICK);
        }
        Self { bar, on_terminal }
    }

    /// A new step, of unknown length.
    pub fn step(&self, what: &str) {
        self.bar.set_style(style("{spinner} {elapsed_precise} {msg}"));
        self.bar.set_message(what.to_owned());
        if !self.on_terminal {
            tell(format_args!("{what}"));
        }
    }

    /// A new step with this many pieces.
    pub fn step_of(&self, what: &str, pieces: u64) {
        self.step(what);
        self.bar.set_position(0);
        self.bar.set_length(pieces);
        self.bar.set_style(style("{spinner} {elapsed_precise} {msg} {wide_bar} {human_pos}/{human_len}"));
    }

    /// This many pieces of the step are done.
    pub fn reached(&self, pieces: u64) {
        self.bar.set_position(pieces);
    }

    /// Output that stays, such as a finished table on stdout.
    pub fn print(&self, text: &str) {
        self.bar.suspend(|| print!("{text}"));
    }

    /// A warning.
    pub fn warn(&self, text: &str) {
        self.bar.suspend(|| tell(format_args!("{text}")));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("a valid template")
}
