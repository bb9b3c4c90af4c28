//! The command line: one file per subcommand. `serve` writes JSON lines; the others write text for people.

/// A line on stdout, for people. A failed write is an error; `println!` would panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say(format_args!($($text)*)) };
}

/// A line on stderr, in addition to the output; if it cannot be written, the work continues.
macro_rules! tell {
    ($($text:tt)*) => { ::runtime::terminal::tell(format_args!($($text)*)) };
}

mod arguments;
mod case;
mod check;
mod client;
mod copy;
mod health;
mod quarantine;
mod reindex;
mod reparse;
mod sample;
mod send;
mod serve;
mod sign;
mod unpack;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use arguments::{EXIT_CONFIGURATION, ServeArguments};
use runtime::escape::for_terminal;
use server::config::ConfigError;
use server::config::settings::SETTINGS;

/// Inbox for message webhooks: verified, stored exactly once, found in milliseconds.
#[derive(Debug, Parser)]
#[command(name = "postroom", version, long_version = long_version(), after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
}

const EXAMPLES: &str = "\
Examples:
  WEBHOOK_SECRET=… DATABASE_URL=sqlite:///data/app.db postroom
  printf '%s' \"$BODY\" | postroom sign -
  postroom send messages.ndjson.gz --url http://localhost:8000/webhook --concurrency 16

Settings come from flags, then the environment, then the file that POSTROOM_CONFIG names; see `postroom serve --help`.";

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Run the service (the default command)
    Serve(ServeArguments),
    /// Print the X-Signature of exactly these bytes
    Sign(sign::Arguments),
    /// Sign and post each line of an NDJSON file
    Send(send::Arguments),
    /// Request the readiness of a running service
    Health(health::Arguments),
    /// Check the configuration and the database
    Check(check::Arguments),
    /// Explain whether a captured request would verify
    Verify(verify::Arguments),
    /// Parse stored bodies again that could not be parsed when they were received
    Reparse(reparse::Arguments),
    /// Rebuild all data derived from the messages
    Reindex(ServeArguments),
    /// Measure this program on this machine
    Bench(bench::Arguments),
    /// Copy all messages to another database, and compare
    Copy(copy::Arguments),
    /// Print completions for a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let flags = matches.subcommand().map(|(_, matches)| given_settings(matches)).unwrap_or_default();
    match cli.command {
        None => serve::run(flags, None),
        Some(Subcommands::Serve(arguments)) => serve::run(flags, arguments.config),
        Some(Subcommands::Sign(arguments)) => finish(sign::run(&arguments)),
        Some(Subcommands::Send(arguments)) => finish(send::run(&arguments)),
        Some(Subcommands::Health(arguments)) => finish(health::run(&arguments)),
        Some(Subcommands::Check(arguments)) => finish(check::run(flags, arguments)),
        Some(Subcommands::Verify(arguments)) => finish(verify::run(flags, arguments)),
        Some(Subcommands::Reparse(arguments)) => finish(reparse::run(flags, arguments)),
        Some(Subcommands::Reindex(arguments)) => finish(reindex::run(flags, arguments)),
        Some(Subcommands::Bench(arguments)) => finish(bench::run(&arguments)),
        Some(Subcommands::Copy(arguments)) => finish(copy::run(&arguments)),
        Some(Subcommands::Completions { shell }) => finish(print_completions(shell)),
    }
}

/// The whole command line, for `--help` and completions.
fn command() -> Command {
    let with_settings = |command: Command| {
        command.args(SETTINGS.iter().filter(|setting| !setting.secret).map(|setting| {
            let default =
                if setting.default.is_empty() { String::new() } else { format!(" [default: {}]", setting.default) };
            Arg::new(setting.name)
                .long(setting.flag())
                .value_name("VALUE")
                .help(format!("{}{default} [env: {}]", setting.about, setting.name))
                .help_heading("Settings")
        }))
    };
    Cli::command()
        .mut_subcommand("serve", with_settings)
        .mut_subcommand("check", with_settings)
        .mut_subcommand("reindex", with_settings)
        .mut_subcommand("reparse", with_settings)
        .mut_subcommand("verify", with_settings)
}

/// The settings that were given as flags, by environment name.
fn given_settings(matches: &ArgMatches) -> BTreeMap<&'static str, String> {
    let given = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
    SETTINGS.iter().filter_map(|setting| Some((setting.name, given(setting.name)?))).collect()
}

fn long_version() -> &'static str {
    let text = format!(
        "{} ({}, {} build, SQLite {}, Unicode {}.{}.{})",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        if cfg!(debug_assertions) { "debug" } else { "release" },
        store::sqlite_version(),
        domain::fold::UNICODE_VERSION.0,
        domain::fold::UNICODE_VERSION.1,
        domain::fold::UNICODE_VERSION.2,
    );
    Box::leak(text.into_boxed_str())
}

fn print_completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "postroom", &mut script);
    say!("{}", String::from_utf8(script)?.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// See the macro. The text may contain data from outside.
fn say(text: fmt::Arguments<'_>) -> Result<(), Unsaid> {
    writeln!(std::io::stdout(), "{}", for_terminal(&text.to_string())).map_err(Unsaid)
}

/// Stdout did not accept a line.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to stdout")]
struct Unsaid(#[source] std::io::Error);

/// Success, or one line on stderr that a person can act on.
fn finish(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        // A reader that closed the pipe, as `head` does, needs no error message.
        let wanted = error.downcast_ref::<Unsaid>().is_none_or(|unsaid| unsaid.0.kind() != ErrorKind::BrokenPipe);
        if wanted {
            tell!("postroom: {error:#}");
        }
        if error.is::<ConfigError>() { ExitCode::from(EXIT_CONFIGURATION) } else { ExitCode::FAILURE }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
