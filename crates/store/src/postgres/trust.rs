//! How strictly a server is verified before it is used.

use std::path::PathBuf;

/// How strictly the server's certificate is verified, after libpq's `sslmode`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// No verification: only encryption, if any (`disable`, `allow`, `prefer`, `require`).
    Anyone,
    /// An authority signed it (`verify-ca`, or `require` with `sslrootcert`).
    Authority(Roots),
    /// In addition, it is valid for this host (`verify-full`).
    Host(Roots),
}

/// The accepted authorities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The authorities that this machine trusts.
    System,
    /// The authorities in a PEM file.
    File(PathBuf),
}
