//! `postroom sign`: the signature of exactly these bytes, without an openssl pipeline.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use server::config::{Inputs, signing_key};

/// Prints the lower-case hexadecimal HMAC-SHA256 of the bytes, keyed with WEBHOOK_SECRET.
///
/// The bytes are signed unchanged: a line end at the end of the file is part of them. Post exactly the same bytes, with
/// `curl --data-binary`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The file to sign; - reads standard input
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Prints the signature.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let key = signing_key(&Inputs::of_environment()?)?;
    say!("{}", key.sign(&read(&arguments.file)?))?;
    Ok(ExitCode::SUCCESS)
}

/// The bytes of a file or of standard input.
pub fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
