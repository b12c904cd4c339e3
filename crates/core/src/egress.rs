//! Where the server may call: public addresses, and what `egress:` names beside them.
//!
//! An address that a tenant chose (an endpoint of a push subscription, a URL of an enrichment)
//! must not reach what only this machine or its network can reach: other programs on loopback,
//! a metadata service, an internal database. The rules judge the address that a name resolved
//! to, together with the name, so whoever connects must connect to that very address.
//!
//! Source of the special networks: IANA "IPv4 Special-Purpose Address Registry" and "IPv6
//! Special-Purpose Address Registry".

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A host, an address or a network, with one port or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    target: Target,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    /// In lower case, without a final dot.
    Host(String),
    Network(IpAddr, u8),
}

/// A text that is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a host, an address or a network")]
pub struct EgressRuleError {
    text: String,
}

impl EgressRule {
    /// Exactly this host and port.
    pub fn host(host: &str, port: u16) -> Self {
        let port = Some(port);
        match unbracketed(host).parse::<IpAddr>() {
            Ok(address) => Self { target: Target::Network(address, width(address)), port },
            Err(_) => Self { target: Target::Host(plain(host)), port },
        }
    }

    fn permits(&self, host: &str, address: IpAddr, port: u16) -> bool {
        if self.port.is_some_and(|own| own != port) {
            return false;
        }
        match &self.target {
            Target::Host(own) => *own == plain(host),
            Target::Network(network, bits) => contains(*network, *bits, unmapped(address)),
        }
    }
}

impl FromStr for EgressRule {
    type Err = EgressRuleError;

    fn from_str(text: &str) -> Result<Self, EgressRuleError> {
        let error = || EgressRuleError { text: text.chars().take(100).collect() };
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| error())?;
            let bits = bits.parse::<u8>().ok().filter(|bits| *bits <= width(address)).ok_or_else(error)?;
            return Ok(Self { target: Target::Network(address, bits), port: None });
        }
        if let Ok(address) = unbracketed(text).parse::<IpAddr>() {
            return Ok(Self { target: Target::Network(address, width(address)), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(error)?))
            }
            None => (text, None),
        };
        if let Ok(address) = unbracketed(host).parse::<IpAddr>() {
            return Ok(Self { target: Target::Network(address, width(address)), port });
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let host = plain(host);
        // A name of digits and dots only would be read as an address by some resolvers.
        let named =
            host.split('.').next_back().is_some_and(|last| last.bytes().any(|b| b.is_ascii_alphabetic()));
        match named && host.len() <= 253 && host.split('.').all(label) {
            true => Ok(Self { target: Target::Host(host), port }),
            false => Err(error()),
        }
    }
}

impl fmt::Display for EgressRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.target, self.port) {
            (Target::Host(host), _) => f.write_str(host)?,
            (Target::Network(address @ IpAddr::V6(_), bits), Some(_)) if *bits == 128 => {
                write!(f, "[{address}]")?
            }
            (Target::Network(address, bits), _) if *bits == width(*address) => write!(f, "{address}")?,
            (Target::Network(address, bits), _) => write!(f, "{address}/{bits}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Serialize for EgressRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which outbound connections are allowed. The default allows public addresses only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Egress {
    rules: Vec<EgressRule>,
    loopback: bool,
}

impl Egress {
    pub fn new(rules: impl IntoIterator<Item = EgressRule>) -> Self {
        Self { rules: rules.into_iter().collect(), loopback: false }
    }

    /// Also this machine itself: for `--dev` and the demo.
    #[must_use]
    pub fn with_loopback(mut self) -> Self {
        self.loopback = true;
        self
    }

    /// The same, and what `rules` name: for a declaration that implies its own host.
    #[must_use]
    pub fn and(&self, rules: impl IntoIterator<Item = EgressRule>) -> Self {
        let mut more = self.clone();
        more.rules.extend(rules);
        more
    }

    /// Whether a connection to `address`, which `host` resolved to, is allowed.
    pub fn allows(&self, host: &str, address: IpAddr, port: u16) -> bool {
        is_public(address)
            || self.loopback && unmapped(address).is_loopback()
            || self.rules.iter().any(|rule| rule.permits(host, address, port))
    }
}

/// Whether an address is reached over the internet: none of the special networks, also not
/// through an IPv6 form that carries an IPv4 address.
pub fn is_public(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const SPECIAL: [(Ipv4Addr, u8); 16] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 88, 99, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        // A cloud's address of its own machines' agent.
        (Ipv4Addr::new(168, 63, 129, 16), 32),
        (Ipv4Addr::new(224, 0, 0, 0), 4),
        (Ipv4Addr::new(240, 0, 0, 0), 4),
    ];
    !SPECIAL.iter().any(|(network, bits)| contains((*network).into(), *bits, address.into()))
}

/// Global unicast (2000::/3) without what is reserved in it or carries an IPv4 address that is
/// not public.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [a, b, ..] = segments;
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    // NAT64 (64:ff9b::/96) reaches the IPv4 address in its last 32 bits, 6to4 that after its prefix.
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(v4(segments[6], segments[7]));
    }
    if a == 0x2002 {
        return is_public_v4(v4(segments[1], segments[2]));
    }
    let reserved = match a {
        0x2001 => b < 0x200 || b == 0xdb8,
        0x3fff => b < 0x1000,
        _ => false,
    };
    a & 0xe000 == 0x2000 && !reserved
}

/// An IPv4 address that is written as IPv6 is that IPv4 address.
fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0 | 0xffff, high, low] if high != 0 => {
                Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into()
            }
            _ => address,
        },
        IpAddr::V4(_) => address,
    }
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    let cut = |value: u128, width: u8| value.checked_shr(u32::from(width - bits)).unwrap_or(0);
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            cut(u32::from(network).into(), 32) == cut(u32::from(address).into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => cut(network.into(), 128) == cut(address.into(), 128),
        _ => false,
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn unbracketed(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

fn plain(host: &str) -> String {
    let host = unbracketed(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn special_addresses_are_not_public_in_any_spelling() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
            "2001:db8::1",
            "2001::1",
            "64:ff9b:1::1",
            "100::1",
        ] {
            assert!(!is_public(ip(address)), "{address}");
        }
        for address in
            ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2600::1", "64:ff9b::808:808", "::ffff:8.8.8.8"]
        {
            assert!(is_public(ip(address)), "{address}");
        }
    }

    #[test]
    fn a_rule_widens_by_exactly_what_it_names() {
        let egress = Egress::new(
            ["hooks.internal:8443", "10.1.0.0/16", "192.168.0.7", "[fd00::1]:9"].map(|r| r.parse().expect(r)),
        );
        for (host, address, port) in [
            ("hooks.internal", "10.9.9.9", 8443),
            ("HOOKS.internal.", "127.0.0.1", 8443),
            ("any.name", "10.1.2.3", 1),
            ("192.168.0.7", "192.168.0.7", 80),
            ("x", "fd00::1", 9),
            ("example.com", "93.184.216.34", 443),
        ] {
            assert!(egress.allows(host, ip(address), port), "{host} {address} {port}");
        }
        for (host, address, port) in [
            ("hooks.internal", "10.9.9.9", 443),
            ("evil.hooks.internal", "10.9.9.9", 8443),
            ("any.name", "10.2.0.1", 1),
            ("x", "fd00::1", 10),
            ("x", "127.0.0.1", 80),
        ] {
            assert!(!egress.allows(host, ip(address), port), "{host} {address} {port}");
        }
        assert!(Egress::default().with_loopback().allows("x", ip("::ffff:127.0.0.1"), 80));
        assert!(!Egress::default().with_loopback().allows("x", ip("10.0.0.1"), 80));
        let own = Egress::default().and([EgressRule::host("127.0.0.1", 9000)]);
        assert!(
            own.allows("127.0.0.1", ip("127.0.0.1"), 9000) && !own.allows("127.0.0.1", ip("127.0.0.1"), 9001)
        );
    }

    #[test]
    fn rules_are_read_and_written_alike() {
        for text in
            ["a.b", "a.b:80", "10.0.0.1", "10.0.0.1:80", "10.0.0.0/8", "fd00::1", "[fd00::1]:80", "fd00::/8"]
        {
            assert_eq!(text.parse::<EgressRule>().map(|r| r.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "*", "a b", "http://a", "10.0.0.0/33", "a:0", "a:b", "1.2.3", "-", "a..b"] {
            assert!(text.parse::<EgressRule>().is_err(), "{text}");
        }
    }
}
