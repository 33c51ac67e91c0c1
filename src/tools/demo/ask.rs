//! What a node says of itself: its `mntr`, read.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::base::Zxid;

/// Longest wait for an answer. A paused node takes connections, and never answers.
const ANSWER_LIMIT: Duration = Duration::from_millis(500);

/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// What a serving node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Follower,
    Observer,
}

/// What a serving node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) role: Role,
    pub(super) epoch: u32,
    /// Applied.
    pub(super) zxid: Zxid,
    pub(super) flush_p99_us: u64,
    /// Connections of clients.
    pub(super) clients: u64,
}

/// An answer, or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing came, or not in time.
    Silent,
    /// It is there, and serves nobody.
    Looking,
    Serving(Report),
}

/// Asks the node on `address`.
pub(super) fn ask(address: SocketAddr) -> Answer {
    answer_of(address).map_or(Answer::Silent, |text| read(&text))
}

fn answer_of(address: SocketAddr) -> std::io::Result<String> {
    let mut socket = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    socket.write_all(b"mntr")?;
    let mut text = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn read(text: &str) -> Answer {
    let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once('\t')).collect();
    let number = |key: &str| fields.get(key).and_then(|value| value.parse::<u64>().ok());
    let role = match fields.get("zk_server_state") {
        Some(&"leader") => Role::Leader,
        Some(&"follower") => Role::Follower,
        Some(&"observer") => Role::Observer,
        _ if text.is_empty() => return Answer::Silent,
        _ => return Answer::Looking,
    };
    Answer::Serving(Report {
        role,
        epoch: number("zk_zabra_epoch_current").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        zxid: Zxid(number("zk_zabra_zxid_applied").unwrap_or(0)),
        flush_p99_us: number("zk_zabra_p99_fsync_us").unwrap_or(0),
        // The one that asks is not a client.
        clients: number("zk_num_alive_connections").unwrap_or(0).saturating_sub(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Epoch;

    #[test]
    fn what_is_said_is_read() {
        let text = "zk_version\t3.9.5\nzk_server_state\tfollower\nzk_num_alive_connections\t3\nzk_zabra_epoch_current\t2\n\
                    zk_zabra_zxid_applied\t8589934597\nzk_zabra_p99_fsync_us\t85\n";
        let zxid = Zxid::new(Epoch(2), 5);
        let want = Report { role: Role::Follower, epoch: 2, zxid, flush_p99_us: 85, clients: 2 };
        assert_eq!(read(text), Answer::Serving(want));
        assert_eq!(
            read(&text.replace("follower", "leader")),
            Answer::Serving(Report { role: Role::Leader, ..want })
        );
        assert_eq!(read("This ZooKeeper instance is not currently serving requests\n"), Answer::Looking);
        assert_eq!(read(""), Answer::Silent);
    }
}
