//! `zabra`: the command line. Parses arguments, hands over to [`zabra::tools`], and turns the result into an exit code.

use std::io::{self, IsTerminal, Write};
use std::process::exit;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use zabra::server::config::ConfigError;
use zabra::server::fourletter::VERSION;
use zabra::tools::{self, InspectArgs, Verdict};

/// A tool found damage, or something failed.
const EXIT_FAILED: i32 = 1;
/// The command line or the configuration is wrong. clap uses the same number.
const EXIT_USAGE: i32 = 2;

const EXIT_CODES: &str = "Exit codes:
  0  fine; a server that was asked to stop
  1  damage was found, or something failed
  2  the command line or the configuration is wrong";

const LOG_HELP: &str = "Examples:
  zabra log verify ./zabra-data
  zabra log dump ./zabra-data | tail
  zabra log dump --json ./zabra-data/zabra/log | jq 'select(.path == \"/a\")'

Reads only. A running server may write while you look: what looks damaged is then looked at again, and the end can be reported as torn.";

const SNAPSHOT_HELP: &str = "Examples:
  zabra snapshot verify ./zabra-data
  zabra snapshot dump ./zabra-data/zabra/snapshot.0000000000000005

Reads only. For a directory, `dump` takes the newest snapshot and `verify` all of them.";

/// A coordination server that every ZooKeeper client uses unchanged
#[derive(Debug, Parser)]
#[command(name = "zabra", version = VERSION, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server in the foreground
    Serve(tools::serve::ServeArgs),
    /// Start an ensemble on this machine, to watch and to hurt
    Demo(tools::demo::DemoArgs),
    /// Load a server and report throughput and latency
    Bench(Box<tools::bench::BenchArgs>),
    /// Show what each member of an ensemble has, and decide by hand whose history stays
    Recover(tools::recover::RecoverArgs),
    /// Look into a transaction log
    #[command(subcommand, after_help = LOG_HELP)]
    Log(Inspect),
    /// Look into snapshots
    #[command(subcommand, after_help = SNAPSHOT_HELP)]
    Snapshot(Inspect),
}

/// The two ways of looking.
#[derive(Debug, Subcommand)]
enum Inspect {
    /// Print everything that is in it, then whether it is good
    Dump(InspectArgs),
    /// Read everything and say whether it is good; exit code 1 when it is not
    Verify(InspectArgs),
}

fn run(command: Command) -> anyhow::Result<Verdict> {
    match command {
        Command::Serve(args) => tools::serve::run(&args).map(|()| Verdict::Fine),
        Command::Demo(args) => tools::demo::run(&args).map(|()| Verdict::Fine),
        Command::Bench(args) => tools::bench::run(*args).map(|()| Verdict::Fine),
        Command::Recover(args) => {
            tools::recover::run(&args, &mut io::BufWriter::new(io::stdout().lock())).map(|()| Verdict::Fine)
        }
        Command::Log(what) => inspect(what, tools::log::dump, tools::log::verify),
        Command::Snapshot(what) => inspect(what, tools::snapshot::dump, tools::snapshot::verify),
    }
}

type Tool = fn(&InspectArgs, &mut dyn Write) -> anyhow::Result<Verdict>;

fn inspect(what: Inspect, dump: Tool, verify: Tool) -> anyhow::Result<Verdict> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match what {
        Inspect::Dump(args) => dump(&args, &mut out),
        Inspect::Verify(args) => verify(&args, &mut out),
    }
}

/// Logs go to standard error; `RUST_LOG` chooses how much.
fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours);
    format.with_target(false).init();
}

/// The error and its causes; many errors name their cause themselves.
fn said_once(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |text, cause| {
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

fn main() {
    start_logging();
    match run(Cli::parse().command) {
        Ok(Verdict::Fine) => {}
        Ok(Verdict::Damaged) => exit(EXIT_FAILED),
        Err(error) => {
            // Each problem of a configuration stands on a line of its own.
            eprintln!("zabra: {}", said_once(&error));
            let usage = error.is::<ConfigError>() || error.is::<tools::Usage>();
            exit(if usage { EXIT_USAGE } else { EXIT_FAILED });
        }
    }
}
