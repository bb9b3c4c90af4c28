//! `postroom send`
use std::process::ExitCode;
/// a
#[derive(Debug, clap::Args)]
pub struct Arguments {}
/// b
pub fn run(_: &Arguments) -> anyhow::Result<ExitCode> { Ok(ExitCode::SUCCESS) }
