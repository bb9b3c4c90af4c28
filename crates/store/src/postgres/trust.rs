//! What a server has to prove before it is spoken to.

use std::path::PathBuf;

/// How strictly the server's certificate is verified, after libpq's `sslmode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Not at all: only encryption, if any (`disable`, `allow`, `prefer`, `require`).
    Anyone,
    /// An authority signed it (`verify-ca`, or `require` with `sslrootcert`).
    Authority(Roots),
    /// In addition, it is for this host (`verify-full`).
    Host(Roots),
}

/// The accepted authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those that this machine trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}
