//! What a server has to prove before it is spoken to.

use std::path::PathBuf;

/// How much of the server's certificate must be proved, after libpq's `sslmode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Nothing: encryption alone, where there is any (`disable`, `allow`, `prefer`, `require`).
    Anyone,
    /// That an authority vouches for it (`verify-ca`, or `require` with `sslrootcert`).
    Authority(Roots),
    /// That too, and that it was made for this host (`verify-full`).
    Host(Roots),
}

/// The authorities that may vouch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// Those that this machine trusts.
    System,
    /// Those of a PEM file.
    File(PathBuf),
}
