//! Java, Maven and Python: found on the path, or the test says that it was skipped.
//!
//! 1. Without `ZABRA_REQUIRE_INTEROP=1` a missing tool skips the test, with one line that names the tool.
//! 2. With it (the continuous-integration script sets it) a missing tool is a failure.
//! 3. What is fetched lands under cargo's `target/tmp/interop`, once, guarded by a file lock.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The place for fetched jars and the virtual environment.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop")
}

/// Where the Java and Python programs and the pom are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// A Java runtime with the official ZooKeeper jars on its class path.
#[derive(Clone, Debug)]
pub(crate) struct Java {
    pub(crate) classpath: String,
}

impl Java {
    /// Skips (or fails) when Java, Maven or the jars cannot be had.
    pub(crate) fn find() -> Option<Java> {
        static FOUND: OnceLock<Result<Java, String>> = OnceLock::new();
        available(FOUND.get_or_init(fetch_jars))
    }

    /// `java -cp <jars>`, quiet, with a small heap.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("java");
        command.args([
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xshare:auto",
            "-Dfile.encoding=UTF-8",
        ]);
        // Servers are cut off on purpose here; a client need not tell.
        command.arg("-Dorg.slf4j.simpleLogger.log.org.apache.zookeeper.ClientCnxn=off");
        command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &self.classpath]);
        command.stdin(Stdio::null());
        command
    }
}

/// A Python with kazoo in it.
pub(crate) fn kazoo() -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    available(FOUND.get_or_init(fetch_kazoo))
}

/// True when a missing tool is a failure.
fn required() -> bool {
    std::env::var("ZABRA_REQUIRE_INTEROP").is_ok_and(|v| v == "1")
}

/// What was found; otherwise skips, or fails, and says what is missing.
pub(crate) fn available<T: Clone>(found: &Result<T, String>) -> Option<T> {
    match found {
        Ok(tool) => Some(tool.clone()),
        Err(why) if required() => panic!("ZABRA_REQUIRE_INTEROP=1, but: needs {why}"),
        Err(why) => {
            // Past the test harness, which keeps what passing tests print to itself.
            let _ = std::io::stderr().write_all(format!("skipped: needs {why}\n").as_bytes());
            None
        }
    }
}

fn fetch_jars() -> Result<Java, String> {
    works("java", "-version")?;
    works("mvn", "-v")?;
    let _lock = lock()?;
    let jars = cache().join("jars");
    let pom = sources().join("pom.xml");
    if !is_fresh(&jars, &pom) {
        let _ = fs::remove_dir_all(&jars);
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
        maven.arg(format!("-DoutputDirectory={}", jars.display()));
        run(maven, "the ZooKeeper jars, which mvn could not resolve")?;
        mark_fresh(&jars, &pom)?;
    }
    Ok(Java { classpath: format!("{}/*", jars.display()) })
}

fn fetch_kazoo() -> Result<PathBuf, String> {
    works("python3", "--version")?;
    let _lock = lock()?;
    let venv = cache().join("venv");
    let wanted = sources().join("requirements.txt");
    let python = venv.join("bin/python");
    if !is_fresh(&venv, &wanted) {
        let _ = fs::remove_dir_all(&venv);
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&venv);
        run(make, "a python3 that can make virtual environments")?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&wanted);
        run(install, "kazoo, which pip could not install")?;
        mark_fresh(&venv, &wanted)?;
    }
    Ok(python)
}

fn lock() -> Result<File, String> {
    fs::create_dir_all(cache()).map_err(|e| format!("a writable {}: {e}", cache().display()))?;
    let file = File::create(cache().join("lock")).map_err(|e| format!("a lock file: {e}"))?;
    file.lock().map_err(|e| format!("a file lock: {e}"))?;
    Ok(file)
}

/// Fetched for exactly this list?
fn is_fresh(directory: &Path, list: &Path) -> bool {
    let stamp = fs::read(directory.join("fetched-for")).ok();
    stamp.is_some() && stamp == fs::read(list).ok()
}

fn mark_fresh(directory: &Path, list: &Path) -> Result<(), String> {
    fs::copy(list, directory.join("fetched-for")).map(drop).map_err(|e| format!("a stamp: {e}"))
}

fn works(program: &str, argument: &str) -> Result<(), String> {
    let mut command = Command::new(program);
    command.arg(argument);
    run(command, program)
}

fn run(mut command: Command, what: &str) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("{what} ({e})"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Err(format!("{what} ({}: {})", output.status, text.lines().next_back().unwrap_or("no output")))
}
