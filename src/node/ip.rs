//! The `ip` scheme: addresses and networks, as ZooKeeper's `IPAuthenticationProvider` reads them.

use std::fmt::Write;
use std::net::IpAddr;

/// An address by its bytes: 4 or 16 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Address {
    bytes: [u8; 16],
    len: usize,
}

/// True when `expr` (`address` or `address/bits`) may stand in an ACL.
#[must_use]
pub fn is_valid(expr: &str) -> bool {
    network(expr).is_some()
}

/// True when the address `id` lies in `expr`.
#[must_use]
pub fn matches(id: &str, expr: &str) -> bool {
    let (Some((network, bits)), Some(address)) = (network(expr), address(id)) else { return false };
    network.len == address.len && masked(network, bits) == masked(address, bits)
}

/// A peer's address as ids carry it: Java's `getHostAddress`, so that ACLs written by ZooKeeper go on to match. Version 4
/// dotted (version 4 inside version 6 too), version 6 in eight groups without leading zeros and without `::`.
#[must_use]
pub fn id_of(peer: IpAddr) -> String {
    match peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let mut out = String::with_capacity(39);
            for (i, group) in v6.segments().into_iter().enumerate() {
                let colon = if i == 0 { "" } else { ":" };
                write!(out, "{colon}{group:x}").expect("writing to a string cannot fail");
            }
            out
        }
    }
}

fn network(expr: &str) -> Option<(Address, usize)> {
    let Some((text, bits)) = expr.split_once('/') else {
        return address(expr).map(|a| (a, a.len * 8));
    };
    let address = address(text)?;
    let bits = usize::try_from(bits.parse::<i32>().ok()?).ok()?;
    (bits <= address.len * 8).then_some((address, bits))
}

fn address(text: &str) -> Option<Address> {
    if text.contains(':') { v6(text) } else { v4(text) }
}

fn v4(text: &str) -> Option<Address> {
    let mut bytes = [0; 16];
    let mut parts = text.split('.');
    for byte in &mut bytes[..4] {
        *byte = u8::try_from(parts.next()?.parse::<i32>().ok()?).ok()?;
    }
    parts.next().is_none().then_some(Address { bytes, len: 4 })
}

fn v6(text: &str) -> Option<Address> {
    let mut halves = text.split("::");
    let (head, tail) = (halves.next()?, halves.next());
    if halves.next().is_some() {
        return None;
    }
    let mut bytes = [0; 16];
    let head_len = groups(head, &mut bytes, tail.is_some())?;
    if let Some(tail) = tail {
        let mut last = [0; 16];
        let tail_len = groups(tail, &mut last, true)?;
        if head_len + tail_len >= 16 {
            return None;
        }
        bytes[16 - tail_len..].copy_from_slice(&last[..tail_len]);
    } else if head_len != 16 {
        return None;
    }
    Some(Address { bytes, len: 16 })
}

/// Reads groups of up to four hex digits into `out`; returns how many bytes they took.
fn groups(text: &str, out: &mut [u8; 16], may_be_empty: bool) -> Option<usize> {
    if text.is_empty() {
        return may_be_empty.then_some(0);
    }
    let mut len = 0;
    for group in text.split(':') {
        if group.is_empty() || group.len() > 4 || len == out.len() {
            return None;
        }
        // Signed, as Java parses it: "-1" is odd, but known ACLs keep their meaning.
        let value = i32::from_str_radix(group, 16).ok()?;
        out[len..len + 2].copy_from_slice(&(value as u16).to_be_bytes());
        len += 2;
    }
    Some(len)
}

fn masked(mut address: Address, bits: usize) -> Address {
    for (i, byte) in address.bytes.iter_mut().enumerate() {
        let keep = bits.saturating_sub(i * 8).min(8) as u32;
        *byte &= (0xff00u16 >> keep) as u8;
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_that_an_acl_may_name() {
        for good in [
            "1.2.3.4",
            "1.2.3.4/0",
            "1.2.3.4/32",
            "::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "fe80::1/64",
            "::/128",
        ] {
            assert!(is_valid(good), "{good}");
        }
        for bad in [
            "",
            "1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.-1",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/",
            "1.2.3.4/x",
            "1.2.3.4/8/8",
            ":::",
            "1::2::3",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4::5:6:7:8",
            "12345::",
            "g::",
            "::/129",
            "localhost",
            "1:",
            ":1",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    #[test]
    fn an_address_matches_its_network_bit_by_bit() {
        assert!(matches("10.1.2.3", "10.1.2.3"));
        assert!(!matches("10.1.2.3", "10.1.2.4"));
        assert!(matches("10.1.255.3", "10.1.128.0/17"));
        assert!(!matches("10.1.127.3", "10.1.128.0/17"));
        assert!(matches("10.1.2.3", "99.0.0.0/0"));
        assert!(matches("fe80:0:0:0:1:2:3:4", "fe80::/10"));
        assert!(!matches("fec0:0:0:0:1:2:3:4", "fe80::/10"));
        assert!(!matches("10.1.2.3", "::/0"), "version 4 is not in version 6");
        assert!(!matches("nonsense", "0.0.0.0/0"));
    }

    #[test]
    fn ids_are_written_as_java_writes_them() {
        assert_eq!(id_of("127.0.0.1".parse().unwrap()), "127.0.0.1");
        assert_eq!(id_of("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1");
        assert_eq!(id_of("::1".parse().unwrap()), "0:0:0:0:0:0:0:1");
        assert_eq!(id_of("fe80::a0b".parse().unwrap()), "fe80:0:0:0:0:0:0:a0b");
    }
}
