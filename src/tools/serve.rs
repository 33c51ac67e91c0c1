//! `zabra serve`: runs a server in the foreground until it is told to stop.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::server::config::Config;
use crate::server::{Recovered, Server};

/// File descriptors that client connections leave to the log, snapshots and the process itself.
const DESCRIPTORS_RESERVED: u64 = 128;

/// Runs a server in the foreground; logs go to stderr.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  zabra serve                                  standalone on 127.0.0.1:2181, data in ./zabra-data
  zabra serve zoo.cfg                          a ZooKeeper configuration file, as it is
  zabra serve zoo.cfg -D clientPort=2182       the same with one key replaced
  zabra serve -D zookeeper.snapCount=50000     keys by their system property names work as well

SIGTERM and SIGINT stop the server cleanly. RUST_LOG=zabra=debug logs more.")]
pub struct ServeArgs {
    /// ZooKeeper configuration file; without one: 127.0.0.1:2181, data in ./zabra-data
    #[arg(value_name = "ZOO.CFG")]
    pub config: Option<PathBuf>,
    /// Sets a key, by its zoo.cfg name or its system property name; wins over the file
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<String>,
    /// Ends when the process that started this one does: for tools that run servers of their own
    #[arg(long, hide = true)]
    pub die_with_parent: bool,
}

/// Runs the server until SIGTERM, SIGINT or a failure.
///
/// # Errors
/// Why it could not start, or why it had to stop.
pub fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let parent = args.die_with_parent.then(watch_parent).transpose()?;
    let mut loaded = Config::load(args.config.as_deref(), &args.define)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    end_with_any_thread();
    raise_descriptor_limit(&mut loaded.config);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = loaded.config.workers.or_else(|| beside_the_member(&loaded.config)) {
        runtime.worker_threads(workers);
    }
    let runtime = runtime.enable_all().thread_name("zabra-io").build().context("cannot start threads")?;
    runtime.block_on(serve(loaded.config, parent))
}

/// A broken invariant ends the process, whichever thread finds it: the others would go on without it, on a state nobody vouches for.
fn end_with_any_thread() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
}

/// Raises the soft limit of file descriptors to the hard one, and keeps clients from using up those that the log needs.
fn raise_descriptor_limit(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(current) = current else { return };
    let for_clients = u32::try_from(current.saturating_sub(DESCRIPTORS_RESERVED)).unwrap_or(u32::MAX).max(1);
    if config.limits.connections_max.is_none_or(|max| max > for_clients) {
        if config.limits.connections_max.is_some() {
            tracing::warn!(
                "at most {for_clients} connections: the process may open {current} files (ulimit -n)"
            );
        }
        config.limits.connections_max = Some(for_clients);
    }
}

/// Ready when the process that started this one has ended: that is the end of standard input, a pipe that only it writes to. Where the
/// system can, it also kills this process at that moment, which reaches one that is stopped (SIGSTOP) too.
fn watch_parent() -> anyhow::Result<oneshot::Receiver<()>> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .context("cannot ask to be told of the parent's end")?;
    let (ended, is_ended) = oneshot::channel();
    let watch = move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = ended.send(());
    };
    std::thread::Builder::new().name("zabra-parent".into()).spawn(watch).context("cannot start a thread")?;
    Ok(is_ended)
}

async fn serve(config: Config, parent: Option<oneshot::Receiver<()>>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let data_dir = config.data_dir.display().to_string();
    let server = Server::start(config).await?;
    say_ready(&server, &data_dir);
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        Ok(()) = async { parent.expect("only with one").await }, if parent.is_some() => {
            tracing::info!("the parent process has ended: stopping");
        }
        () = server.failed() => {}
    }
    tokio::task::spawn_blocking(move || server.stop()).await.context("stopping failed")?
}

/// One line, for people and scripts: where it listens, what it recovered.
fn say_ready(server: &Server, data_dir: &str) {
    let Recovered { zxid, nodes, snapshot, replayed, bytes_cut, took } = server.recovered();
    let snapshot = snapshot.map_or("no snapshot".to_owned(), |zxid| format!("snapshot {zxid}"));
    let cut = if *bytes_cut > 0 { format!(", {bytes_cut} unacknowledged bytes cut") } else { String::new() };
    let line = format!(
        "zabra {} ready: clients on {}, data in {data_dir}, zxid {zxid}, {nodes} nodes ({snapshot} + {replayed} transactions{cut}) in {took:.1?}\n",
        env!("CARGO_PKG_VERSION"),
        server.address(),
    );
    // Not through the log: it must be there whatever the log level. In one piece: nobody reads half of it, and no other line gets into it.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// In an ensemble one core is the member's, under load; `None` alone: one worker per core.
fn beside_the_member(config: &Config) -> Option<usize> {
    config.ensemble.as_ref()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Some(cores.saturating_sub(1).max(1))
}
