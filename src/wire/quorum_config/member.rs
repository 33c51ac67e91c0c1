//! One member of an ensemble as a `server.N` line tells it, and the addresses it is made of.
//!
//! `host:quorum:election[:role][|host:quorum:election…][;[host:]clientPort[;[host:]securePort]]`; hosts may be `[v6]`.
//!
//! - M1: what is printed parses to the same member. ZooKeeper prints the role once, behind the last address, so a role that
//!   is named anywhere counts for all.

use std::fmt;

/// Addresses of one member. ZooKeeper has no limit; nobody has this many networks.
pub const MEMBER_ADDRESSES_MAX: usize = 16;

/// Address that ZooKeeper prints for a client port without a host.
pub const ANY_HOST: &str = "0.0.0.0";

/// A host, without the brackets of an IPv6 address, and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort<'a> {
    /// Name or address, as written.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
}

impl<'a> HostPort<'a> {
    /// Reads `host:port` or `[v6]:port`.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<HostPort<'a>> {
        let (host, rest) = split_host(text)?;
        is_host(host).then_some(HostPort { host, port: parse_port(rest)? })
    }
}

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Does a member vote?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberRole {
    /// Votes and acknowledges.
    #[default]
    Participant,
    /// Learns only.
    Observer,
}

/// One way to reach a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemberAddress {
    /// Name or address, without brackets.
    pub host: String,
    /// Port that the leader listens on for learners.
    pub quorum_port: u16,
    /// Port of the election.
    pub election_port: u16,
}

/// Where a member takes clients. No host means every address, which is also what [`ANY_HOST`] reads as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientAddress {
    /// Name or address, without brackets.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
}

/// What stands behind `server.N=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// At least one, in order of the hosts' names.
    pub addresses: Vec<MemberAddress>,
    /// Participant unless said otherwise.
    pub role: MemberRole,
    /// Behind the first `;`.
    pub client: Option<ClientAddress>,
    /// Behind the second `;` (ZooKeeper 3.10).
    pub secure_client: Option<ClientAddress>,
}

/// Why a `server.N` value is none. Display says what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Not of this form.
    #[error("host:port:port[:participant|observer][;[address:]clientPort]")]
    Form,
    /// One address says observer, another participant.
    #[error("the same role for every address of a server")]
    Roles,
    /// More than [`MEMBER_ADDRESSES_MAX`].
    #[error("at most {MEMBER_ADDRESSES_MAX} addresses of a server")]
    TooManyAddresses,
}

impl Member {
    /// Reads the value of a `server.N` line.
    pub fn parse(text: &str) -> Result<Member, MemberError> {
        let mut parts = text.split(';');
        let servers = parts.next().unwrap_or_default();
        let mut client = || client_part(parts.next());
        let (client, secure_client) = (client()?, client()?);
        if parts.next().is_some() {
            return Err(MemberError::Form);
        }
        if servers.split('|').nth(MEMBER_ADDRESSES_MAX).is_some() {
            return Err(MemberError::TooManyAddresses);
        }
        let (mut addresses, mut role) = (Vec::new(), None);
        for server in servers.split('|') {
            let (address, said) = server_part(server.trim()).ok_or(MemberError::Form)?;
            addresses.push(address);
            match (role, said) {
                (Some(a), Some(b)) if a != b => return Err(MemberError::Roles),
                _ => role = role.or(said),
            }
        }
        addresses.sort();
        Ok(Member { addresses, role: role.unwrap_or_default(), client, secure_client })
    }

    /// True for an observer.
    #[must_use]
    pub fn is_observer(&self) -> bool {
        self.role == MemberRole::Observer
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.addresses.iter().enumerate() {
            let separator = if index == 0 { "" } else { "|" };
            let quorum = HostPort { host: &address.host, port: address.quorum_port };
            write!(f, "{separator}{quorum}:{}", address.election_port)?;
        }
        f.write_str(if self.is_observer() { ":observer" } else { ":participant" })?;
        if let Some(client) = &self.client {
            write!(f, ";{client}")?;
        }
        if let Some(secure) = &self.secure_client {
            let skipped = if self.client.is_none() { ";" } else { "" };
            write!(f, "{skipped};{secure}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        HostPort { host: self.host.as_deref().unwrap_or(ANY_HOST), port: self.port }.fmt(f)
    }
}

impl ClientAddress {
    /// Reads `port`, `host:port` or `[v6]:port`.
    #[must_use]
    pub fn parse(text: &str) -> Option<ClientAddress> {
        if let Some(port) = parse_port(text) {
            return Some(ClientAddress { host: None, port });
        }
        let HostPort { host, port } = HostPort::parse(text)?;
        // ZooKeeper prints a port without a host with this one: the two are the same address.
        let host = (host != ANY_HOST).then(|| host.to_owned());
        Some(ClientAddress { host, port })
    }
}

fn client_part(text: Option<&str>) -> Result<Option<ClientAddress>, MemberError> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => ClientAddress::parse(text).map(Some).ok_or(MemberError::Form),
    }
}

/// One address and the role it names, if any.
fn server_part(text: &str) -> Option<(MemberAddress, Option<MemberRole>)> {
    let (host, rest) = split_host(text)?;
    let mut parts = rest.split(':');
    let (quorum_port, election_port) = (parse_port(parts.next()?)?, parse_port(parts.next()?)?);
    let role = match parts.next().map(str::trim) {
        None => None,
        Some(word) if word.eq_ignore_ascii_case("participant") => Some(MemberRole::Participant),
        Some(word) if word.eq_ignore_ascii_case("observer") => Some(MemberRole::Observer),
        Some(_) => return None,
    };
    let fine = is_host(host) && quorum_port != election_port && parts.next().is_none();
    fine.then(|| (MemberAddress { host: host.to_owned(), quorum_port, election_port }, role))
}

/// No character that ends a host, a line or an address; everything else is the resolver's business.
fn is_host(host: &str) -> bool {
    let ends =
        |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | '|' | ';' | '=' | '\\');
    !host.is_empty() && !host.contains(ends)
}

/// Host and what stands behind its colon; brackets around an IPv6 address are dropped.
fn split_host(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.split_once(':'),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_every_form_print_as_zookeeper_prints_them() {
        for (text, printed) in [
            ("h:2888:3888", "h:2888:3888:participant"),
            ("h:2888:3888:OBSERVER", "h:2888:3888:observer"),
            ("h:2888:3888;2181", "h:2888:3888:participant;0.0.0.0:2181"),
            ("h:2888:3888:participant;10.0.0.1:2181", "h:2888:3888:participant;10.0.0.1:2181"),
            ("[::1]:2888:3888;[::1]:2181", "[::1]:2888:3888:participant;[::1]:2181"),
            ("b:1:2|a:3:4;2181", "a:3:4|b:1:2:participant;0.0.0.0:2181"),
            ("a:1:2|b:1:2:observer", "a:1:2|b:1:2:observer"),
            ("h:1:2;2181;2281", "h:1:2:participant;0.0.0.0:2181;0.0.0.0:2281"),
            ("h:1:2;;s:2281", "h:1:2:participant;;s:2281"),
        ] {
            let member = Member::parse(text).unwrap();
            assert_eq!(member.to_string(), printed);
            assert_eq!(Member::parse(printed).unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_member_is_refused() {
        for text in [
            "",
            "h",
            "h:1",
            "h:1:1",
            "h:1:x",
            "h:1:2:king",
            "h:1:2:participant:x",
            ":1:2",
            "h:1:2;x",
            "h:1:2;1;2;3",
            "h:99999:2",
            "[::1:1:2",
            "a:1:2|",
            "h:1:2;:2181",
            "h i:1:2",
            "h\\:1:2",
        ] {
            assert_eq!(Member::parse(text), Err(MemberError::Form), "{text:?}");
        }
        assert_eq!(Member::parse("a:1:2:participant|b:1:2:observer"), Err(MemberError::Roles));
        let many = vec!["a:1:2"; MEMBER_ADDRESSES_MAX + 1].join("|");
        assert_eq!(Member::parse(&many), Err(MemberError::TooManyAddresses));
    }
}
