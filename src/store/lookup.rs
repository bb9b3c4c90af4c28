//! What is found under an id.

/// What was found under an id: a key, or a provider's id, which may stand for several messages.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup<T> {
    /// This.
    Found(T),
    /// Nothing.
    Absent,
    /// Several, with these keys; at most ten are told.
    Ambiguous(Vec<String>),
}

/// Maximum keys that the response for an ambiguous id contains.
pub(super) const CANDIDATES_MAX: i64 = 10;
