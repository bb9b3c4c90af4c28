//! The result of a look-up by id.

/// The result of a look-up by a key, or by a provider's id, which several messages may share.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup<T> {
    /// One result.
    Found(T),
    /// No result.
    Absent,
    /// Several results, with these keys; at most ten.
    Ambiguous(Vec<String>),
}

/// Maximum keys that the response for an ambiguous id contains.
pub(super) const CANDIDATES_MAX: i64 = 10;
