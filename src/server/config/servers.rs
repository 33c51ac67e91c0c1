//! `server.N` lines and `myid`: who is in the ensemble. This version runs a single server; more than one is refused clearly.
//!
//! Format: `host:port:port[:role][|host:port:port…][;[host:]clientPort[;[host:]secureClientPort]]`, hosts may be `[v6]`.

use crate::base::ServerId;

use super::{ListenAddress, NO_ENSEMBLE};

/// What one `server.N` line says, as far as a single server needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerLine {
    pub(crate) id: ServerId,
    pub(crate) observer: bool,
    /// From behind the first `;`.
    pub(crate) client: Option<ListenAddress>,
    /// Something stands behind the second `;`.
    pub(crate) secure: bool,
}

const FORMAT: &str = "host:port:port[:participant|observer][;[address:]clientPort]";

/// Reads one line. The error says what is expected.
pub(crate) fn parse(id: &str, value: &str) -> Result<ServerLine, String> {
    let id = id.parse::<i64>().map(ServerId).map_err(|_| "server.N with a whole number N".to_owned())?;
    let mut parts = value.split(';');
    let servers = parts.next().unwrap_or_default();
    let client = parts.next().filter(|p| !p.trim().is_empty());
    let secure = parts.next().is_some_and(|p| !p.trim().is_empty());
    if parts.next().is_some() {
        return Err(FORMAT.to_owned());
    }
    let roles: Option<Vec<bool>> = servers.split('|').map(|s| role(s.trim())).collect();
    let roles = roles.ok_or_else(|| FORMAT.to_owned())?;
    let observer = roles[0];
    if roles.iter().any(|r| *r != observer) {
        return Err("the same role for every address of a server".to_owned());
    }
    let client = client.map(|c| client_address(c.trim()).ok_or_else(|| FORMAT.to_owned())).transpose()?;
    Ok(ServerLine { id, observer, client, secure })
}

/// True for an observer; `None` when the address is not one.
fn role(address: &str) -> Option<bool> {
    let (host, rest) = split_host(address)?;
    let mut parts = rest.split(':');
    let (quorum, election) = (port(parts.next()?)?, port(parts.next()?)?);
    let observer = match parts.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("participant") => false,
        Some(word) if word.eq_ignore_ascii_case("observer") => true,
        Some(_) => return None,
    };
    let fine = !host.is_empty() && quorum != election && parts.next().is_none();
    fine.then_some(observer)
}

/// `port` or `host:port`.
fn client_address(text: &str) -> Option<ListenAddress> {
    if let Some(port) = port(text) {
        return Some(ListenAddress { host: None, port });
    }
    let (host, rest) = split_host(text)?;
    let host = (!host.is_empty()).then(|| host.to_owned())?;
    Some(ListenAddress { host: Some(host), port: port(rest)? })
}

/// Host and what stands behind its colon; brackets around an IPv6 address are dropped.
fn split_host(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:"),
        None => text.split_once(':'),
    }
}

fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// First line of `myid`.
pub(crate) fn parse_myid(bytes: &[u8]) -> Result<ServerId, String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    line.parse::<i64>().map(ServerId).map_err(|_| line.chars().take(40).collect())
}

/// The one server this is, if any line names it; the error says what is expected.
pub(crate) fn only_one(
    lines: &[ServerLine],
    standalone_enabled: bool,
    my_id: Option<ServerId>,
) -> Result<Option<ServerLine>, String> {
    let Some(line) = lines.first() else {
        return if standalone_enabled {
            Ok(None)
        } else {
            Err(format!("standaloneEnabled=true when there is no server line; {NO_ENSEMBLE}"))
        };
    };
    if lines.len() > 1 {
        return Err(format!("at most one server line, found {}; {NO_ENSEMBLE}", lines.len()));
    }
    if line.observer {
        return Err("a participant: an observer cannot be alone".to_owned());
    }
    if !standalone_enabled {
        return Err(format!("standaloneEnabled=true; {NO_ENSEMBLE}"));
    }
    match my_id {
        Some(id) if id != line.id => {
            Err(format!("the number that stands in myid, which is {}, not {}", id.0, line.id.0))
        }
        _ => Ok(Some(line.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<(Option<String>, u16)> {
        parse("1", text).unwrap().client.map(|c| (c.host, c.port))
    }

    #[test]
    fn server_lines_of_every_form() {
        assert_eq!(client("h:2888:3888"), None);
        assert_eq!(client("h:2888:3888;2181"), Some((None, 2181)));
        assert_eq!(client("h:2888:3888:participant;10.0.0.1:2181"), Some((Some("10.0.0.1".into()), 2181)));
        assert_eq!(client("[::1]:2888:3888;[::1]:2181"), Some((Some("::1".into()), 2181)));
        assert_eq!(client("a:1:2|b:1:2;2181"), Some((None, 2181)));
        assert!(parse("1", "h:1:2:OBSERVER").unwrap().observer);
        assert!(parse("1", "h:1:2;2181;2281").unwrap().secure);
        assert!(parse("1", "h:1:2;;2281").unwrap().client.is_none());
    }

    #[test]
    fn server_lines_that_are_wrong() {
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
            "a:1:2|b:1:2:observer",
            "h:1:2;:2181",
        ] {
            assert!(parse("1", text).is_err(), "{text:?}");
        }
        assert!(parse("x", "h:1:2").is_err());
    }

    #[test]
    fn more_than_one_server_is_refused_and_one_must_be_the_right_one() {
        let line = |id: &str| parse(id, "h:1:2;2181").unwrap();
        assert_eq!(only_one(&[], true, None), Ok(None));
        assert!(only_one(&[], false, None).is_err());
        assert_eq!(only_one(&[line("1")], true, None), Ok(Some(line("1"))));
        assert_eq!(only_one(&[line("1")], true, Some(ServerId(1))), Ok(Some(line("1"))));
        assert!(only_one(&[line("1")], true, Some(ServerId(2))).is_err());
        assert!(only_one(&[line("1")], false, None).is_err());
        assert!(only_one(&[line("1"), line("2")], true, None).unwrap_err().contains("ensembles"));
        assert!(only_one(&[parse("1", "h:1:2:observer").unwrap()], true, None).is_err());
    }

    #[test]
    fn myid_is_the_first_line() {
        assert_eq!(parse_myid(b"3\nrest"), Ok(ServerId(3)));
        assert_eq!(parse_myid(b" 12 "), Ok(ServerId(12)));
        assert!(parse_myid(b"").is_err());
        assert!(parse_myid(b"one").is_err());
    }
}
