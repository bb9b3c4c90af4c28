//! The provider data of a message, beyond the six columns of the table.

use serde_json::{Map, Value};

/// Labels of a closed set: an enum, its values, and the names that they are stored and shown under.
macro_rules! names {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in storage and responses.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// The value with this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}
pub(super) use names;

names! {
    /// The kind of a message, with names common to all providers.
    Kind {
        /// A text.
        Text = "text",
        /// A picture.
        Image = "image",
        /// A video.
        Video = "video",
        /// Audio, including voice messages.
        Audio = "audio",
        /// Any other file.
        Document = "document",
        /// A sticker.
        Sticker = "sticker",
        /// A location.
        Location = "location",
        /// Contacts of an address book.
        Contacts = "contacts",
        /// A reply to buttons, a list or a form.
        Interactive = "interactive",
        /// A pressed button of a template.
        Button = "button",
        /// A reaction to another message; an empty text removes it.
        Reaction = "reaction",
        /// An order.
        Order = "order",
        /// A notice of the platform, such as a changed number.
        System = "system",
        /// A new text for an earlier message.
        Edit = "edit",
        /// A deleted message.
        Revoke = "revoke",
        /// A poll, or votes in one.
        Poll = "poll",
        /// The platform reports a message without its content.
        Unsupported = "unsupported",
        /// A kind that Postroom does not know.
        Unknown = "unknown",
    }
}

/// The source of a message without details: the source with Postroom's own format.
pub const ORIGINAL_SOURCE: &str = "postroom";

/// The kind of a message without details.
pub const PLAIN_KIND: Kind = Kind::Text;

/// A file of a message. All fields come from the provider, and the sender may have chosen them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// The provider's id, to request the file.
    pub id: Option<String>,
    /// The URL of the file, valid for a while.
    pub url: Option<String>,
    /// Its media type.
    pub mime_type: Option<String>,
    /// Its digest, in the provider's form.
    pub sha256: Option<String>,
    /// Its name; chosen by the sender, so never a path.
    pub file_name: Option<String>,
    /// Its size.
    pub bytes: Option<u64>,
}

/// The provider data of a message, in Postroom's own tables. It cannot be rebuilt from the table `messages`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The source that received it.
    pub source: String,
    /// The provider's protocol.
    pub provider: &'static str,
    /// The provider's own name for the account that received it.
    pub account: String,
    /// The provider's id of the message, without the prefix that makes it unique in the inbox.
    pub provider_id: String,
    /// Its kind.
    pub kind: Kind,
    /// The provider's own word for the kind.
    pub provider_kind: String,
    /// The time as the provider wrote it. None if the provider sends no time; `ts` is then the time of receipt.
    pub provider_ts: Option<String>,
    /// The message to which it replies.
    pub reply_to: Option<String>,
    /// The sender's display name.
    pub profile_name: Option<String>,
    /// The sender's id that survives a change of number (for example a BSUID).
    pub person: Option<String>,
    /// The group that it was sent to.
    pub group: Option<String>,
    /// Its files.
    pub media: Vec<Media>,
    /// Further data of its kind: a location, contacts, the target of a reaction.
    pub extra: Map<String, Value>,
}

impl Details {
    /// The details as a JSON object, in the form of storage and responses. Absent parts are left out.
    pub fn to_fields(&self) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                fields.insert(name.to_owned(), value.into());
            }
        };
        put("source", Some(&self.source));
        put("provider", Some(self.provider));
        put("account", Some(&self.account));
        put("provider_id", Some(&self.provider_id));
        put("kind", Some(self.kind.name()));
        put("provider_kind", Some(&self.provider_kind));
        put("provider_ts", self.provider_ts.as_deref());
        put("reply_to", self.reply_to.as_deref());
        put("profile_name", self.profile_name.as_deref());
        put("person", self.person.as_deref());
        put("group", self.group.as_deref());
        if !self.media.is_empty() {
            fields.insert("media".to_owned(), self.media.iter().map(Media::to_value).collect());
        }
        if !self.extra.is_empty() {
            fields.insert("extra".to_owned(), Value::Object(self.extra.clone()));
        }
        fields
    }
}

impl Media {
    fn to_value(&self) -> Value {
        let texts = [
            ("id", &self.id),
            ("url", &self.url),
            ("mime_type", &self.mime_type),
            ("sha256", &self.sha256),
            ("file_name", &self.file_name),
        ];
        let mut fields: Map<String, Value> = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Value::String(text.clone()?))))
            .collect();
        if let Some(bytes) = self.bytes {
            fields.insert("bytes".to_owned(), bytes.into());
        }
        Value::Object(fields)
    }
}
