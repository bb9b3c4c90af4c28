//! All protocols, one row each.

use super::scheme::Scheme;
use super::{
    bird, evolution, generic, line, messagebird, original, plivo, presets, slack, standard, telegram, telnyx, twilio,
    vonage, waha, whatsapp,
};

/// Every supported protocol.
pub static SCHEMES: &[Scheme] = &[
    original::SCHEME,
    whatsapp::SCHEME,
    twilio::SCHEME,
    standard::SCHEME,
    telegram::SCHEME,
    waha::SCHEME,
    evolution::SCHEME,
    generic::SCHEME,
    presets::DIALOG360,
    vonage::SCHEME,
    messagebird::SCHEME,
    bird::SCHEME,
    line::SCHEME,
    slack::SCHEME,
    telnyx::SCHEME,
    plivo::SCHEME,
    presets::GITHUB,
    presets::STRIPE,
];

impl Scheme {
    /// The protocol with this name.
    pub fn find(kind: &str) -> Option<&'static Scheme> {
        SCHEMES.iter().find(|scheme| scheme.kind == kind)
    }

    /// Whether the configuration defines how its requests are signed and parsed.
    pub fn is_generic(&self) -> bool {
        self.kind == generic::SCHEME.kind
    }
}
