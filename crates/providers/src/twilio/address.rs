//! Twilio's spelling of senders and recipients.

use domain::Address;

/// `+E164`, `whatsapp:+E164`, `whatsapp:<BSUID>`, a short code, a company's name, or an id of another channel, which
/// is never read as a number.
pub fn address(raw: &str) -> Address {
    let Some((channel, own)) = raw.split_once(':') else { return Address::read(raw) };
    let number = if channel == "whatsapp" { Address::international(own) } else { None };
    match number.or_else(|| own.starts_with('+').then(|| Address::number(own)).flatten()) {
        Some(number) => number,
        None if channel == "whatsapp" => Address::tagged("bsuid", own),
        None => Address::tagged(&channel.chars().take(16).collect::<String>(), own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_channel() {
        let cases = [
            ("+14155550100", "+14155550100"),
            ("whatsapp:+14155550100", "+14155550100"),
            ("whatsapp:US.ABC123", "bsuid:US.ABC123"),
            ("12345", "short:12345"),
            ("AcmeCorp", "alpha:AcmeCorp"),
            ("68849", "short:68849"),
            ("14155550100", "+14155550100"),
            ("messenger:1234567890", "messenger:1234567890"),
            ("viber:4915112345678", "viber:4915112345678"),
            ("rcs:+14155550100", "+14155550100"),
            ("rcs:my_agent_1", "rcs:my_agent_1"),
            ("whatsapp:14155550100", "+14155550100"),
            ("+1abc", "alpha:+1abc"),
        ];
        for (raw, expected) in cases {
            assert_eq!(address(raw).as_str(), expected, "{raw}");
        }
    }
}
