//! Where the fields of a message are in a body, as the configuration says.

use super::rule::Text;

/// Where the fields of a message are, as JSON pointers (RFC 6901). What has no pointer is not looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Whether bodies are forms, whose parameters are then members of one object.
    pub is_form: bool,
    /// The list of messages; the others are looked for within each. None: the body is one.
    pub messages: Option<Text>,
    /// A place whose value decides whether it is a message at all.
    pub when: Option<Text>,
    /// The value that makes it one.
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
    /// The sort of message.
    pub kind: Option<Text>,
    /// The account; looked for in the body as a whole.
    pub account: Option<Text>,
    /// What it answers.
    pub reply_to: Option<Text>,
    /// What the sender calls itself.
    pub profile_name: Option<Text>,
    /// The group.
    pub group: Option<Text>,
    /// Where its file is.
    pub media_url: Option<Text>,
    /// The media type of it.
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
