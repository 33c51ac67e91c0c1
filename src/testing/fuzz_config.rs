//! Fuzz entry point for the configuration: whatever the bytes, a configuration or complaints, never a panic.

use std::path::Path;

use crate::server::config::{Config, ConfigError};

/// Reads `data` as a `zoo.cfg`, once as it is and once as `myid` and as the dynamic file of a valid one; part of it also goes
/// in as a flag, and once behind what an ensemble needs. Every complaint can be printed on lines of its own.
pub fn config(data: &[u8]) {
    read(data, None, &[]);
    let flag = String::from_utf8_lossy(&data[..data.len().min(80)]).into_owned();
    read(b"dataDir=/d\nclientPort=1\n", Some(data), std::slice::from_ref(&flag));
    read(b"dataDir=/d\ndynamicConfigFile=/dynamic\n", Some(data), &[]);
    let ensemble = [&b"dataDir=/d\nclientPort=1\ninitLimit=1\nsyncLimit=1\n"[..], data].concat();
    read(&ensemble, Some(b"1"), &[]);
}

fn read(file: &[u8], others: Option<&[u8]>, flags: &[String]) {
    let files = |path: &Path| {
        Ok(if path == Path::new("zoo.cfg") { Some(file.to_vec()) } else { others.map(<[u8]>::to_vec) })
    };
    match Config::read(Some(Path::new("zoo.cfg")), flags, &files) {
        Ok(loaded) => {
            let c = loaded.config;
            assert!(c.session_timeout_ms_min <= c.session_timeout_ms_max);
            assert!(c.log.segment_bytes > c.frame_bytes_max as u64);
            assert!(c.limits.inflight_bytes_max >= c.frame_bytes_max as u64);
            assert!(c.tick_ms > 0);
            if let Some(e) = c.ensemble {
                assert!(e.config.members().contains_key(&e.me) && c.server_id == Some(e.me));
                assert!(e.init_limit_ticks > 0 && e.sync_limit_ticks > 0 && e.cnx_timeout_ms > 0);
                assert!(e.notification_ms_min <= e.notification_ms_max && e.liveness_probe_ms > 0);
                assert!(e.liveness_timeout_ms.is_none_or(|ms| ms >= 2 * e.liveness_probe_ms));
            }
            loaded.warnings.iter().for_each(|w| assert!(!w.to_string().is_empty()));
        }
        Err(ConfigError::Wrong { problems }) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|p| assert!(p.to_string().contains("expected")));
        }
        Err(ConfigError::Read { .. }) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// Lines of real files, cut, joined and sprinkled with noise.
    #[test]
    fn short_run_from_fixed_seeds() {
        const PIECES: &[&str] = &[
            "dataDir",
            "clientPort",
            "server.1",
            "server.2=h:3:4\n",
            "server.1=h:1:2\n",
            "group.",
            "weight.1",
            ":observer",
            "standaloneEnabled=false\n",
            "version",
            "tickTime",
            "=",
            ":",
            " ",
            "\\",
            "\n",
            "\r",
            "#",
            "!",
            "2181",
            "-1",
            "0x",
            "h:1:2",
            ";",
            "|",
            "\\u00",
            "\\ud83d",
            "zookeeper.",
            "jute.maxbuffer",
            "99999999999999999999",
            "true",
            "yes",
            "autopurge.purgeInterval",
            "5d",
            "*",
            ",",
            "é",
            "4lw.commands.whitelist",
            "myid",
            "ssl.",
            "[::1]",
            "preAllocSize",
        ];
        let mut rng = Rng::new(2);
        for _ in 0..3_000 {
            let mut data = Vec::new();
            for _ in 0..rng.below(40) {
                if rng.one_in(12) {
                    data.push(rng.next_u64() as u8);
                } else {
                    data.extend_from_slice(PIECES[rng.below(PIECES.len() as u64) as usize].as_bytes());
                }
            }
            config(&data);
        }
    }
}
