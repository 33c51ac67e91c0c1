//! Client programs that talk with their test: lines on their output ask for something, lines on their input answer.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long one client program may take.
const PROGRAM_LIMIT: Duration = Duration::from_secs(180);

/// Runs a client program to its end. Lines that `answer` takes are answered with what it returns; the others are returned.
pub(crate) fn drive(mut command: Command, mut answer: impl FnMut(&str) -> Option<String>) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut input = child.stdin.take().expect("piped");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let (lines, arrived) = channel();
    let reader =
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|l| lines.send(l).is_ok()));
    let (deadline, mut text) = (Instant::now() + PROGRAM_LIMIT, String::new());
    loop {
        match arrived.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => match answer(&line) {
                Some(answer) => writeln!(input, "{answer}").expect("the program waits for it"),
                None => {
                    println!("{line}");
                    text += &line;
                    text.push('\n');
                }
            },
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("not done within {PROGRAM_LIMIT:?}\n{text}");
            }
        }
    }
    reader.join().expect("the reader does not panic");
    let status = child.wait().expect("waiting for a child");
    assert!(status.success(), "{status}\n{text}");
    text
}

/// Programs end with `passed N`.
pub(crate) fn assert_passed(text: &str, at_least: usize) {
    let passed = text.lines().next_back().and_then(|line| line.strip_prefix("passed "));
    let passed: usize = passed.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no result\n{text}"));
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), passed);
    assert!(passed >= at_least, "only {passed} checks");
}
