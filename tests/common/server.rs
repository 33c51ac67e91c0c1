//! A server under test, Zabra or a real ZooKeeper, behind one face: same `zoo.cfg`, same data directory rules, same
//! port for its whole life, so that clients can come back after a restart.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::tools::Java;

/// How long a server may take until it answers.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);

/// How much of a server's log a failing test shows.
const LOG_TAIL_BYTES: usize = 16_384;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Zabra,
    ZooKeeper(Java),
}

impl Kind {
    /// `ZABRA_TEST_SERVER=zookeeper` puts a real ZooKeeper where Zabra would stand, to test the tests.
    pub(crate) fn under_test() -> Option<Kind> {
        match std::env::var("ZABRA_TEST_SERVER").as_deref() {
            Ok("zookeeper") => Java::find().map(Kind::ZooKeeper),
            Ok("zabra") | Err(_) => Some(Kind::Zabra),
            Ok(other) => panic!("ZABRA_TEST_SERVER={other}: expected zabra or zookeeper"),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Kind::Zabra => "zabra",
            Kind::ZooKeeper(_) => "zookeeper",
        }
    }
}

/// What differs from the defaults of [`Server::start`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Lines of `zoo.cfg`, without `dataDir` and `clientPort`.
    pub(crate) config: Vec<(String, String)>,
    /// Properties that ZooKeeper reads from the command line only (`-D`).
    pub(crate) properties: Vec<(String, String)>,
    /// A program and its arguments that the server is started through, and that becomes it.
    pub(crate) through: Vec<String>,
}

impl Options {
    /// Every four-letter word, TTL nodes, and the super user `super:secret`.
    pub(crate) fn everything() -> Options {
        Options::default()
            .config("tickTime", "2000")
            .config("4lw.commands.whitelist", "*")
            .config("admin.enableServer", "false")
            .config("extendedTypesEnabled", "true")
            .config("maxClientCnxns", "0")
            .config("DigestAuthenticationProvider.superDigest", "super:lK75jTNcA+U9vtVEw5vB51mj/w4=")
    }

    pub(crate) fn config(mut self, key: &str, value: &str) -> Options {
        self.config.retain(|(k, _)| k != key);
        self.config.push((key.into(), value.into()));
        self
    }

    pub(crate) fn property(mut self, key: &str, value: &str) -> Options {
        self.properties.push((key.into(), value.into()));
        self
    }
}

/// A running server; killed when dropped, its directory removed.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    options: Options,
    directory: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Server {
    /// Starts `kind` on an empty directory and waits until it serves.
    pub(crate) fn start(kind: &Kind, options: &Options) -> Server {
        let directory =
            tempfile::Builder::new().prefix("zabra-test").tempdir().expect("a temporary directory");
        let (kind, options) = (kind.clone(), options.clone());
        let mut server = Server { kind, options, directory, port: free_port(), child: None };
        server.write_config();
        server.spawn();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// `host:port`, as clients want it.
    pub(crate) fn hosts(&self) -> String {
        self.address().to_string()
    }

    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Where the server keeps its data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// SIGKILL: no chance to flush or say goodbye.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().expect("a child can be killed");
        child.wait().expect("a killed child can be waited for");
    }

    /// SIGTERM, then waits for the end.
    pub(crate) fn stop(&mut self) {
        self.terminate();
    }

    /// SIGTERM, then the exit code once it has ended.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("the server runs");
        let id = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("a child can be signalled");
        self.wait_for_end(&mut child)
    }

    fn wait_for_end(&self, child: &mut Child) -> Option<i32> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Some(status) = child.try_wait().expect("a child can be waited for") {
                return status.code();
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("{} did not end within {START_LIMIT:?}\n{}", self.kind.name(), self.log());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts a process on the same configuration that is expected to end by itself, also beside a running one:
    /// its exit code and what it said.
    pub(crate) fn refused(&self) -> (Option<i32>, String) {
        let path = self.directory.path().join("refused");
        let said = File::create(&path).expect("a log file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(said.try_clone().expect("a second handle")).stderr(said);
        let mut child = command.spawn().expect("it can be started");
        let code = self.wait_for_end(&mut child);
        (code, String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned())
    }

    /// The process that runs.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// All that the server wrote to stdout and stderr, over all its starts.
    pub(crate) fn whole_log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_path()).unwrap_or_default()).into_owned()
    }

    /// Changes a line of `zoo.cfg` for the next start.
    pub(crate) fn configure(&mut self, key: &str, value: &str) {
        self.options = std::mem::take(&mut self.options).config(key, value);
        self.write_config();
    }

    /// Starts again on the same directory and port.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "stop or kill it first");
        self.spawn();
    }

    /// The end of what the server wrote to stdout and stderr.
    pub(crate) fn log(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_TAIL_BYTES)..]).into_owned()
    }

    /// Sends a four-letter word (or any bytes) and returns everything until the server closes.
    pub(crate) fn word(&self, word: &[u8]) -> String {
        try_word(self.address(), word)
            .unwrap_or_else(|e| panic!("{}: {e}\n{}", word.escape_ascii(), self.log()))
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.directory.path().join("zoo.cfg")
    }

    fn write_config(&self) {
        fs::create_dir_all(self.data_dir()).expect("a data directory");
        let mut text = format!("dataDir={}\nclientPort={}\n", self.data_dir().display(), self.port);
        text += "clientPortAddress=127.0.0.1\n";
        for (key, value) in &self.options.config {
            text += &format!("{key}={value}\n");
        }
        fs::write(self.config_path(), text).expect("a configuration file");
    }

    fn command(&self) -> Command {
        let properties = self.options.properties.iter().map(|(k, v)| format!("{k}={v}"));
        match &self.kind {
            Kind::Zabra => {
                let binary = [env!("CARGO_BIN_EXE_zabra").to_owned(), "serve".to_owned()];
                let mut words = self.options.through.iter().chain(&binary);
                let mut command = Command::new(words.next().expect("at least the binary"));
                command.args(words);
                command.args(properties.flat_map(|p| ["-D".into(), p]));
                command.arg(self.config_path());
                command
            }
            Kind::ZooKeeper(java) => {
                let mut command = java.command();
                command.args(properties.map(|p| format!("-D{p}")));
                command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain").arg(self.config_path());
                command
            }
        }
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.current_dir(self.directory.path());
        let child = command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", self.kind.name()));
        self.child = Some(child);
        self.wait_until_serving();
    }

    fn wait_until_serving(&mut self) {
        let deadline = Instant::now() + START_LIMIT;
        while !try_word(self.address(), b"srvr").is_ok_and(|text| text.contains("Mode: ")) {
            let ended = self.child.as_mut().expect("just started").try_wait().expect("waiting for a child");
            assert!(ended.is_none(), "{} ended at start: {ended:?}\n{}", self.kind.name(), self.log());
            assert!(Instant::now() < deadline, "{} does not serve\n{}", self.kind.name(), self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- last words of {} ---\n{}", self.kind.name(), self.log());
        }
    }
}

/// Sends `word` to `address` and reads until the end.
pub(crate) fn try_word(address: SocketAddr, word: &[u8]) -> std::io::Result<String> {
    try_word_within(address, word, Duration::from_secs(10))
}

/// The same, for a server that may hang.
pub(crate) fn try_word_within(address: SocketAddr, word: &[u8], limit: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(word)?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A port that nobody listens on, below the range the kernel gives to outgoing connections: while the server is
/// down between two starts, no client's own socket can take its place.
pub(crate) fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..1000 {
        let step = TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (start.wrapping_add(step) % 18_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port among a thousand");
}

/// Runs `command` to its end, but no longer than `limit`; its output goes to the test's own.
pub(crate) fn run_bounded(mut command: Command, limit: Duration, directory: &Path) -> Result<String, String> {
    let path = directory.join(format!("output-{}", free_port()));
    let file = File::create(&path).map_err(|e| e.to_string())?;
    command.stdin(Stdio::null()).stdout(file.try_clone().map_err(|e| e.to_string())?).stderr(file);
    let mut child = command.spawn().map_err(|e| format!("{command:?}: {e}"))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let output = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    match status {
        Some(status) if status.success() => Ok(output),
        Some(status) => Err(format!("{status}\n{output}")),
        None => Err(format!("not done within {limit:?}\n{output}")),
    }
}
