//! What a run does, checked: every number inside its limit, every host resolved, before the first connection.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::BenchArgs;
use super::workload::Workload;

/// Connections of one run: two file descriptors each at most stay below the usual hard limit of 2^20.
pub(super) const CONNS_MAX: usize = 50_000;
/// Requests in flight over all connections: 16 bytes each here, and far above what any server queues.
pub(super) const IN_FLIGHT_MAX: usize = 1 << 24;
/// Bytes of data per node: what is left of ZooKeeper's `jute.maxbuffer` when path and ACL are in.
pub(super) const SIZE_MAX: usize = 1_000_000;
/// Nodes of the key set.
pub(super) const KEYS_MAX: u64 = 10_000_000;
/// Longest run, seconds: a day.
pub(super) const SECS_MAX: f64 = 86_400.0;
/// Load threads; more than the machine has cores only adds noise.
pub(super) const THREADS_MAX: usize = 64;
/// Operations a second of an open loop: beyond what one machine generates.
pub(super) const RATE_MAX: f64 = 1e8;
/// Operations of one schedule: what is never sent is counted one by one at the end, in seconds.
pub(super) const SCHEDULED_MAX: f64 = 1e9;
/// Seconds of a run that ends by count and was given no time.
const COUNT_SECS: f64 = 600.0;
const SECS_DEFAULT: f64 = 10.0;
const PORT_DEFAULT: u16 = 2181;

/// What the requests look like.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) workload: Workload,
    /// Bytes of data per node.
    pub(super) size: usize,
    /// Nodes of the key set, or listed children.
    pub(super) keys: u64,
    pub(super) multi_ops: usize,
    pub(super) writes_percent: u64,
}

/// A run, ready to start.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) hosts: Vec<SocketAddr>,
    pub(super) shape: Shape,
    pub(super) conns: usize,
    pub(super) depth: usize,
    pub(super) threads: usize,
    pub(super) secs: Duration,
    pub(super) warmup: Duration,
    pub(super) count: Option<u64>,
    /// Operations a second; `None` is a closed loop.
    pub(super) rate: Option<f64>,
    pub(super) timeout: Duration,
    pub(super) prefix: String,
    pub(super) keep: bool,
    pub(super) timeline: bool,
}

impl Plan {
    /// Checks the arguments and resolves the hosts.
    pub(super) fn from_args(args: &BenchArgs) -> anyhow::Result<Plan> {
        ensure!(
            !args.hosts.is_empty() || args.compare_floor.is_some(),
            "--hosts HOST:PORT,… says what to load (or --compare-floor alone to measure this machine)"
        );
        check_limits(args)?;
        let keys = args.keys.unwrap_or(if args.workload == Workload::List { 100 } else { 1000 });
        // A watch workload has one node per connection.
        let keys = if args.workload == Workload::Watch { args.conns as u64 } else { keys };
        let secs = args.secs.unwrap_or(if args.count.is_some() { COUNT_SECS } else { SECS_DEFAULT });
        // An open loop has made its operations when their last is due.
        let (count, secs) = match (args.count, args.rate) {
            (Some(count), Some(rate)) => (None, secs.min(count as f64 / rate)),
            (count, _) => (count, secs),
        };
        let warmup = if args.count.is_some() { 0.0 } else { args.warmup };
        let scheduled = args.rate.unwrap_or(0.0) * (secs + warmup);
        ensure!(
            scheduled <= SCHEDULED_MAX,
            "--rate × --secs is {scheduled:.0}: expected at most {SCHEDULED_MAX:.0}"
        );
        Ok(Plan {
            hosts: resolve(&args.hosts)?,
            shape: Shape {
                workload: args.workload,
                size: args.size,
                keys,
                multi_ops: args.multi_ops,
                writes_percent: u64::from(args.writes),
            },
            conns: args.conns,
            depth: args.depth,
            threads: args.threads.unwrap_or_else(threads_default).min(args.conns),
            secs: Duration::from_secs_f64(secs),
            warmup: Duration::from_secs_f64(warmup),
            count,
            rate: args.rate,
            timeout: Duration::from_millis(args.timeout),
            prefix: match &args.prefix {
                Some(path) => checked_prefix(path)?,
                None => fresh_prefix()?,
            },
            keep: args.keep,
            timeline: args.timeline,
        })
    }

    /// The same load against another server.
    pub(super) fn against(&self, addr: SocketAddr) -> Plan {
        Plan { hosts: vec![addr], ..self.clone() }
    }
}

fn check_limits(args: &BenchArgs) -> anyhow::Result<()> {
    within("--conns", args.conns, 1, CONNS_MAX)?;
    within("--depth", args.depth, 1, IN_FLIGHT_MAX / args.conns)
        .with_context(|| format!("--conns × --depth is at most {IN_FLIGHT_MAX}"))?;
    within("--size", args.size, 0, SIZE_MAX)?;
    within("--keys", args.keys.unwrap_or(1), 1, KEYS_MAX)?;
    within("--writes", args.writes, 0, 100)?;
    within("--multi-ops", args.multi_ops, 1, SIZE_MAX / (args.size + 200))
        .context("a transaction has to fit into one frame of 1 MiB")?;
    within("--secs", args.secs.unwrap_or(1.0), 0.1, SECS_MAX)?;
    within("--warmup", args.warmup, 0.0, SECS_MAX)?;
    within("--rate", args.rate.unwrap_or(1.0), 0.001, RATE_MAX)?;
    within("--count", args.count.unwrap_or(1), 1, u64::MAX >> 8)?;
    within("--timeout", args.timeout, 10, 3_600_000)?;
    within("--threads", args.threads.unwrap_or(1), 1, THREADS_MAX)
}

fn within<T: PartialOrd + std::fmt::Display>(flag: &str, value: T, min: T, max: T) -> anyhow::Result<()> {
    // NaN compares with nothing, and is refused here as well.
    ensure!(value >= min && value <= max, "{flag} {value}: expected {min} to {max}");
    Ok(())
}

/// One thread where the server needs the other core; two from four cores on.
fn threads_default() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores >= 4 { 2 } else { 1 }
}

fn resolve(hosts: &[String]) -> anyhow::Result<Vec<SocketAddr>> {
    let mut addrs = Vec::with_capacity(hosts.len());
    for host in hosts.iter().map(|h| h.trim()) {
        ensure!(!host.is_empty(), "--hosts has an empty entry");
        ensure!(!host.contains('/'), "--hosts {host}: a chroot has no effect here; use --prefix");
        let named = if has_port(host) { host.to_owned() } else { format!("{host}:{PORT_DEFAULT}") };
        let found = named.to_socket_addrs().with_context(|| format!("--hosts {host}: expected HOST:PORT"))?;
        // A name with several addresses (localhost) is one server: IPv4 first, as most servers listen there.
        let addr = found.min_by_key(SocketAddr::is_ipv6);
        addrs.push(addr.with_context(|| format!("--hosts {host}: the name has no address"))?);
    }
    Ok(addrs)
}

fn has_port(host: &str) -> bool {
    match host.rsplit_once(']') {
        Some((_, behind)) => behind.starts_with(':'),
        None => host.contains(':'),
    }
}

fn checked_prefix(path: &str) -> anyhow::Result<String> {
    let names = path.strip_prefix('/').filter(|rest| !rest.is_empty());
    let names =
        names.with_context(|| format!("--prefix {path}: expected a path below the root, like /bench"))?;
    if names.split('/').any(|name| matches!(name, "" | "." | "..")) || names.contains('\0') {
        bail!("--prefix {path}: not a valid node path");
    }
    Ok(path.to_owned())
}

fn fresh_prefix() -> anyhow::Result<String> {
    let id = getrandom::u32().map_err(|e| anyhow::anyhow!("no randomness for the run's name: {e}"))?;
    Ok(format!("/zabra-bench-{id:08x}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArgs,
    }

    pub(in super::super) fn args(line: &str) -> BenchArgs {
        use clap::Parser;
        Line::try_parse_from(std::iter::once("bench").chain(line.split_whitespace())).unwrap().bench
    }

    fn refused(line: &str) -> String {
        format!("{:#}", Plan::from_args(&args(line)).expect_err(line))
    }

    #[test]
    fn defaults_are_the_documented_ones() {
        let plan = Plan::from_args(&args("--hosts 127.0.0.1:1,[::1]:2,127.0.0.3")).unwrap();
        assert_eq!((plan.conns, plan.depth, plan.shape.size), (64, 16, 100));
        assert_eq!((plan.secs.as_secs(), plan.warmup.as_secs(), plan.shape.keys), (10, 1, 1000));
        assert_eq!(plan.hosts.iter().map(|a| a.port()).collect::<Vec<_>>(), [1, 2, 2181]);
        assert!(plan.prefix.starts_with("/zabra-bench-") && !plan.keep);
        let plan = Plan::from_args(&args("--hosts 127.0.0.1 --count 5 --workload list")).unwrap();
        assert_eq!((plan.secs.as_secs(), plan.warmup.as_secs(), plan.shape.keys), (600, 0, 100));
        let plan = Plan::from_args(&args("--hosts 127.0.0.1 --count 500 --rate 100")).unwrap();
        assert_eq!((plan.secs.as_secs(), plan.count), (5, None));
    }

    #[test]
    fn what_is_outside_a_limit_is_named_with_what_is_expected() {
        assert!(refused("").contains("--hosts"));
        assert!(refused("--hosts a --conns 0").contains("--conns 0: expected 1 to"));
        assert!(refused("--hosts a --conns 50000 --depth 1000").contains("--conns × --depth"));
        assert!(refused("--hosts a --rate nan").contains("--rate"));
        assert!(refused("--hosts a --rate 1e6 --secs 2000").contains("--rate × --secs"));
        assert!(refused("--hosts a --workload multi --multi-ops 100000").contains("one frame"));
        assert!(refused("--hosts 127.0.0.1:1/chroot").contains("--prefix"));
        assert!(refused("--hosts 127.0.0.1:1 --prefix /").contains("--prefix /"));
        assert!(refused("--hosts 127.0.0.1:1 --prefix /a//b").contains("not a valid"));
    }

    #[test]
    fn floor_is_a_command_of_its_own() {
        let floor = args("floor --flush group --port 0").command;
        assert!(
            matches!(floor, Some(super::super::BenchCommand::Floor(f)) if f.flush == super::super::FlushMode::Group)
        );
        let compared = args("--compare-floor inline").compare_floor;
        assert_eq!(compared, Some(super::super::FlushMode::Inline));
        assert_eq!(args("--compare-floor --json").compare_floor, Some(super::super::FlushMode::Group));
    }
}
