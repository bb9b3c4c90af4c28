//! What a provider tells of a message beyond the six columns of the table.

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

            /// The name under which it is stored and shown.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// The value of that name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|value| value.name() == name)
            }
        }
    };
}
pub(super) use names;

names! {
    /// What sort of message it is, in words that are the same for all providers.
    Kind {
        /// Words.
        Text = "text",
        /// A picture.
        Image = "image",
        /// A film.
        Video = "video",
        /// Sound, a voice message too.
        Audio = "audio",
        /// Any other file.
        Document = "document",
        /// A sticker.
        Sticker = "sticker",
        /// A place.
        Location = "location",
        /// Address-book entries.
        Contacts = "contacts",
        /// An answer to buttons, a list or a form.
        Interactive = "interactive",
        /// A pressed button of a template.
        Button = "button",
        /// A reaction to another message; an empty text takes it back.
        Reaction = "reaction",
        /// A shopping basket.
        Order = "order",
        /// Something that the platform says, such as a changed number.
        System = "system",
        /// Another text for a message sent before.
        Edit = "edit",
        /// A message taken back.
        Revoke = "revoke",
        /// A poll, or votes in one.
        Poll = "poll",
        /// The platform tells that there is a message, but not what it says.
        Unsupported = "unsupported",
        /// A sort that Postroom does not know.
        Unknown = "unknown",
    }
}

/// The source of a message without details: the one that takes Postroom's own format.
pub const ORIGINAL_SOURCE: &str = "postroom";

/// The kind of a message without details.
pub const PLAIN_KIND: Kind = Kind::Text;

/// A file that belongs to a message. Every field is the provider's word, and the sender may have chosen it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// The provider's id, to ask for the file.
    pub id: Option<String>,
    /// Where the file is, for a while.
    pub url: Option<String>,
    /// Its media type.
    pub mime_type: Option<String>,
    /// Its digest, as the provider writes it.
    pub sha256: Option<String>,
    /// Its name; chosen by the sender, so never a path.
    pub file_name: Option<String>,
    /// Its size.
    pub bytes: Option<u64>,
}

/// What is kept of a message beside its row, in objects of our own. Nothing here can be built again from the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// The door that it came through.
    pub source: String,
    /// The provider's protocol.
    pub provider: &'static str,
    /// The provider's own name for the account that received it.
    pub account: String,
    /// The provider's id of the message, without what makes it unique in the inbox.
    pub provider_id: String,
    /// What sort of message it is.
    pub kind: Kind,
    /// The provider's own word for that.
    pub provider_kind: String,
    /// The time as the provider wrote it; none where it sends none, and `ts` is when the message came.
    pub provider_ts: Option<String>,
    /// The message that it answers.
    pub reply_to: Option<String>,
    /// What the sender calls itself.
    pub profile_name: Option<String>,
    /// The sender's id that outlives a change of number (a BSUID, say).
    pub person: Option<String>,
    /// The group that it was sent to.
    pub group: Option<String>,
    /// Its files.
    pub media: Vec<Media>,
    /// Whatever else belongs to its kind: a place, contacts, what a reaction is to.
    pub extra: Map<String, Value>,
}

impl Details {
    /// The details as a JSON object, in the form that they are stored and shown in. Absent parts are left out.
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
