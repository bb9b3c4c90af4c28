//! The kind of a Telegram message: it has no type, only a member with the content.

use serde_json::Value;

use super::super::json::{list, members, text};
use domain::Kind;

/// Members that decide the kind of a message, in order. Other types keep Telegram's word.
const KINDS: [(&str, Kind); 24] = [
    ("text", Kind::Text),
    ("photo", Kind::Image),
    ("animation", Kind::Video),
    ("video", Kind::Video),
    ("video_note", Kind::Video),
    ("voice", Kind::Audio),
    ("audio", Kind::Audio),
    // `animation` comes first: it also has a `document` for older clients.
    ("document", Kind::Document),
    ("sticker", Kind::Sticker),
    ("venue", Kind::Location),
    ("location", Kind::Location),
    ("contact", Kind::Contacts),
    ("poll", Kind::Poll),
    ("web_app_data", Kind::Interactive),
    ("users_shared", Kind::Interactive),
    ("chat_shared", Kind::Interactive),
    ("invoice", Kind::Order),
    ("paid_media", Kind::Unknown),
    ("checklist", Kind::Unknown),
    ("dice", Kind::Unknown),
    ("game", Kind::Unknown),
    ("giveaway", Kind::Unknown),
    ("giveaway_winners", Kind::Unknown),
    ("story", Kind::Unknown),
];

/// Members that are files, and become `media`.
pub const FILES: [&str; 8] = ["animation", "audio", "document", "photo", "sticker", "video", "video_note", "voice"];

/// Members with which Telegram itself reports an event.
const HAPPENED: [&str; 49] = [
    "boost_added",
    "channel_chat_created",
    "chat_background_set",
    "checklist_tasks_added",
    "checklist_tasks_done",
    "connected_website",
    "delete_chat_photo",
    "direct_message_price_changed",
    "forum_topic_closed",
    "forum_topic_created",
    "forum_topic_edited",
    "forum_topic_reopened",
    "general_forum_topic_hidden",
    "general_forum_topic_unhidden",
    "gift",
    "gift_upgrade_sent",
    "giveaway_completed",
    "giveaway_created",
    "group_chat_created",
    "left_chat_member",
    "message_auto_delete_timer_changed",
    "migrate_from_chat_id",
    "migrate_to_chat_id",
    "new_chat_members",
    "new_chat_photo",
    "new_chat_title",
    "paid_message_price_changed",
    "passport_data",
    "pinned_message",
    "proximity_alert_triggered",
    "refunded_payment",
    "successful_payment",
    "suggested_post_approval_failed",
    "suggested_post_approved",
    "suggested_post_declined",
    "suggested_post_paid",
    "suggested_post_refunded",
    "supergroup_chat_created",
    "unique_gift",
    "user_shared",
    "video_chat_ended",
    "video_chat_participants_invited",
    "video_chat_scheduled",
    "video_chat_started",
    "voice_chat_ended",
    "voice_chat_participants_invited",
    "voice_chat_scheduled",
    "voice_chat_started",
    "write_access_allowed",
];

/// Members of any message that are kept elsewhere, or only concern display.
const OF_ANY_MESSAGE: [&str; 21] = [
    "business_connection_id",
    "caption",
    "caption_entities",
    "chat",
    "date",
    "edit_date",
    "entities",
    "from",
    "has_media_spoiler",
    "has_protected_content",
    "is_from_offline",
    "is_paid_post",
    "is_topic_message",
    "link_preview_options",
    "message_id",
    "reply_markup",
    "reply_to_message",
    "sender_boost_count",
    "sender_chat",
    "show_caption_above_media",
    "text",
];

/// Members with the context of a message.
pub const CONTEXT: [&str; 23] = [
    "author_signature",
    "business_connection_id",
    "direct_messages_topic",
    "effect_id",
    "external_reply",
    "forward_date",
    "forward_from",
    "forward_from_chat",
    "forward_from_message_id",
    "forward_origin",
    "forward_sender_name",
    "forward_signature",
    "is_automatic_forward",
    "media_group_id",
    "message_thread_id",
    "paid_star_count",
    "quote",
    "reply_to_checklist_task_id",
    "reply_to_story",
    "sender_business_bot",
    "sender_tag",
    "suggested_post_info",
    "via_bot",
];

/// A message has no type: its members determine the kind.
pub fn kind(part: &Value) -> (Kind, &str) {
    if let Some((name, kind)) = KINDS.iter().find(|(name, _)| part.get(*name).is_some()) {
        let media = list(&part["paid_media"], "paid_media").iter().filter_map(|item| text(item, "type"));
        let paid = media.filter_map(|kind| KINDS.iter().find(|(name, _)| *name == kind)).map(|(_, kind)| *kind).next();
        return (paid.unwrap_or(*kind), name);
    }
    match own_members(part).min() {
        Some(name) if HAPPENED.contains(&name) => (Kind::System, name),
        Some(name) => (Kind::Unknown, name),
        None => (Kind::Unknown, ""),
    }
}

/// Members that only some messages have.
pub fn own_members(part: &Value) -> impl Iterator<Item = &str> {
    let names = members(part).map(|(name, _)| name.as_str());
    names.filter(|name| !OF_ANY_MESSAGE.contains(name) && !CONTEXT.contains(name))
}
