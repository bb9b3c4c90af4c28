//! Addresses and networks, for lists of trusted proxies.

use std::net::{IpAddr, Ipv6Addr};

/// An address, or all addresses with the same prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// `10.0.0.1`, `10.0.0.0/8`, `::1`, `[::1]` or `fd00::/8`. IPv4 written as IPv6 is IPv4, as everywhere.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address: IpAddr = match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
            None => address.parse().ok()?,
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.map_or(Some(most), |bits| bits.parse().ok()).filter(|bits| *bits <= most)?;
        match address.to_canonical() {
            IpAddr::V4(mapped) if address.is_ipv6() => {
                Some(Self { address: mapped.into(), bits: bits.checked_sub(96)? })
            }
            _ => Some(Self { address, bits }),
        }
    }

    /// Whether it contains every address, of IPv4 or IPv6.
    pub fn is_everyone(&self) -> bool {
        self.bits == 0
    }

    /// Whether it contains the address. An IPv4 address written as IPv6 is the same address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let shift = 32 - u32::from(self.bits);
                own.to_bits().checked_shr(shift).unwrap_or(0) == other.to_bits().checked_shr(shift).unwrap_or(0)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.bits);
                own.to_bits().checked_shr(shift).unwrap_or(0) == other.to_bits().checked_shr(shift).unwrap_or(0)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_begins_with_their_bits() {
        let contains =
            |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.1", "10.0.0.1") && contains("10.0.0.0/8", "10.255.0.1"));
        assert!(contains("10.0.0.1", "::ffff:10.0.0.1") && contains("::1", "::1") && contains("fd00::/8", "fdff::1"));
        assert!(contains("0.0.0.0/0", "1.2.3.4") && contains("::/0", "2001:db8::1"));
        assert!(!contains("10.0.0.1", "10.0.0.2") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(!contains("0.0.0.0/0", "::1") && !contains("fd00::/8", "fe00::1"));
        assert!(contains("::ffff:10.0.0.0/104", "10.1.2.3") && !contains("::ffff:10.0.0.0/104", "11.1.2.3"));
        assert!(contains("[::1]", "::1") && contains("[fd00::]/8", "fd01::1"));
        for bad in [
            "[10.0.0.1]",
            "[::1",
            "::ffff:10.0.0.0/8",
            "",
            "10.0.0",
            "10.0.0.1/33",
            "10.0.0.1/x",
            "::1/129",
            "example.com",
            "10.0.0.1/",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
