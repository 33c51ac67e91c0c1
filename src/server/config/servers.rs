//! `server.N` lines and `myid`: who is in the ensemble. This version runs a single server; more than one is refused clearly.
//!
//! The value of a line is a [`Member`].

use crate::base::ServerId;
use crate::wire::quorum_config::Member;

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

/// Reads one line. The error says what is expected.
pub(crate) fn parse(id: &str, value: &str) -> Result<ServerLine, String> {
    let id = id.parse::<i64>().map(ServerId).map_err(|_| "server.N with a whole number N".to_owned())?;
    let member = Member::parse(value).map_err(|e| e.to_string())?;
    let observer = member.is_observer();
    let client = member.client.map(|c| ListenAddress { host: c.host, port: c.port });
    Ok(ServerLine { id, observer, client, secure: member.secure_client.is_some() })
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
    fn server_lines_that_are_wrong_say_what_is_expected() {
        assert!(parse("1", "h:1").unwrap_err().starts_with("host:port:port"));
        assert!(parse("1", "a:1:2:participant|b:1:2:observer").unwrap_err().contains("the same role"));
        assert!(parse("x", "h:1:2").unwrap_err().contains("whole number"));
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
