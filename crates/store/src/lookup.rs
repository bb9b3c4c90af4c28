//! What is found under an id.

/// The result of a look-up by a key, or by a provider's id, which several messages may share.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup<T> {
    /// This.
    Found(T),
    /// Nothing.
    Absent,
    /// Several, with these keys; at most ten.
    Ambiguous(Vec<String>),
}

/// Maximum keys that the response for an ambiguous id contains.
pub(super) const CANDIDATES_MAX: i64 = 10;
