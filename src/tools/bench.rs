//! `zabra bench`: a load generator for any server that speaks ZooKeeper's protocol, and the floor server that shows what this
//! machine could do at best. See `src/docs/benchmarking.md`.
//!
//! - B1: an operation's latency counts from the moment it was due: in a closed loop when its slot became free, in an open
//!   loop when the schedule said so, however late it was sent.
//! - B2: an operation belongs to the window in which it was due; throughput counts completions inside the window. What was
//!   due and never answered is an error and enters the percentiles with the time waited.
//! - B3: everything is bounded: connections × depth requests in flight, one read buffer a thread, histograms of fixed size, a
//!   run that ends by the clock.
//! - B4: the run works below its own prefix only, and removes it at the end unless told to keep it; a prefix that is there
//!   already is never removed.
//! - B5: no allocation, no clock read and no system call per request: all are per readiness event.

pub(super) mod client;
mod conn;
mod floor;
mod frames;
mod measure;
mod plan;
mod report;
mod schedule;
mod session;
mod stats;
mod stop;
mod template;
mod tree;
mod worker;
mod workload;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use floor::FlushMode;
pub use workload::Workload;

use plan::Plan;

/// `zabra bench`: loads a server and reports throughput and latency.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    /// `floor` runs the built-in server instead of a load.
    #[command(subcommand)]
    pub command: Option<BenchCommand>,
    /// Servers to load, `host:port,…`; connections go round robin.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    pub hosts: Vec<String>,
    /// What to ask for.
    #[arg(long, value_enum, default_value_t = Workload::Set)]
    pub workload: Workload,
    /// Connections, each with a session of its own.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub conns: usize,
    /// Requests in flight per connection.
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub depth: usize,
    /// Bytes of data per node.
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    pub size: usize,
    /// Seconds to measure; 10, or 600 at most when --count ends the run.
    #[arg(long, value_name = "S")]
    pub secs: Option<f64>,
    /// Seconds of load before measuring; none with --count.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub warmup: f64,
    /// Stop after this many operations instead of after a time.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Open loop: operations a second over all connections, due at fixed times.
    #[arg(long, value_name = "OPS_PER_SEC")]
    pub rate: Option<f64>,
    /// Nodes of the key set (set, get, mix, multi); children of the node that `list` lists [default: 1000, list: 100]
    #[arg(long, value_name = "N")]
    pub keys: Option<u64>,
    /// Share of writes in `mix`, percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 10)]
    pub writes: u8,
    /// setData operations in one transaction of `multi`.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub multi_ops: usize,
    /// A connection that gets no answer for this long is given up and opened again, on the next host.
    #[arg(long, value_name = "MS", default_value_t = 10_000)]
    pub timeout: u64,
    /// Threads that generate load [default: 1, or 2 from 4 cores on]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Subtree to work in; its parent must exist [default: a fresh `/zabra-bench-ID`]
    #[arg(long, value_name = "PATH")]
    pub prefix: Option<String>,
    /// Leave the subtree: with `create`, this fills a tree.
    #[arg(long)]
    pub keep: bool,
    /// Run the same load against the floor server too, and print every figure as a percentage of it.
    #[arg(long, value_enum, value_name = "FLUSH", num_args = 0..=1, default_missing_value = "group")]
    pub compare_floor: Option<FlushMode>,
    /// Directory of the floor's file; use the disk of the server under test.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub floor_dir: PathBuf,
    /// Report as JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Add completions per 100 ms to the JSON report.
    #[arg(long)]
    pub timeline: bool,
}

/// What else `zabra bench` does.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BenchCommand {
    /// Serve canned answers: parse, optionally append and flush, reply. Keeps nothing.
    Floor(FloorArgs),
}

/// `zabra bench floor`: the built-in server alone, until it is interrupted.
#[derive(Clone, Debug, clap::Args)]
pub struct FloorArgs {
    /// How written requests reach the disk before they are answered.
    #[arg(long, value_enum, default_value_t = FlushMode::None)]
    pub flush: FlushMode,
    /// Port on 127.0.0.1; 0 picks one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// Directory of its file (unlinked at once).
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Threads that serve connections.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// Children that it answers to a listing.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub children: usize,
}

/// Runs the command; the report goes to standard output, everything else to standard error.
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    if let Some(BenchCommand::Floor(floor)) = args.command {
        return floor::serve(&floor);
    }
    let plan = Plan::from_args(&args).map_err(super::Usage)?;
    let stop = stop::on_interrupt()?;
    let server = if plan.hosts.is_empty() { None } else { Some(measure::against_server(&plan, &stop)?) };
    let floor = match args.compare_floor {
        Some(mode) => Some(measure::against_floor(&plan, mode, &args.floor_dir, &stop)?),
        None => None,
    };
    let report = report::Report::new(&plan, server, floor);
    report.print(args.json)?;
    report.verdict()
}
