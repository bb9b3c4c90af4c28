//! The positions of a message's fields in a body, from the configuration.

use super::rule::Text;

/// The fields of a message as JSON pointers (RFC 6901). Fields without a pointer are not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Whether bodies are forms, whose parameters are then members of one object.
    pub is_form: bool,
    /// The list of messages; the other pointers apply to each. None: the body is one message.
    pub messages: Option<Text>,
    /// A pointer whose value decides whether the body is a message.
    pub when: Option<Text>,
    /// The value that makes it a message.
    pub equals: Option<Text>,
    /// The provider's id.
    pub id: Option<Text>,
    /// The sender.
    pub from: Option<Text>,
    /// The recipient.
    pub to: Option<Text>,
    /// The time.
    pub time: Option<Text>,
    /// The text.
    pub text: Option<Text>,
    /// The kind of message.
    pub kind: Option<Text>,
    /// The account; read from the whole body.
    pub account: Option<Text>,
    /// The message to which it replies.
    pub reply_to: Option<Text>,
    /// The display name of the sender.
    pub profile_name: Option<Text>,
    /// The group.
    pub group: Option<Text>,
    /// The URL of its file.
    pub media_url: Option<Text>,
    /// The media type of the file.
    pub media_type: Option<Text>,
}

/// A mapping that finds nothing: every body becomes an event.
pub const NOTHING_MAPPED: Mapping = Mapping {
    is_form: false,
    messages: None,
    when: None,
    equals: None,
    id: None,
    from: None,
    to: None,
    time: None,
    text: None,
    kind: None,
    account: None,
    reply_to: None,
    profile_name: None,
    group: None,
    media_url: None,
    media_type: None,
};
