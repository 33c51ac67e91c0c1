//! The load generator end to end, over loopback, on ephemeral ports: against the floor server, and against servers that
//! stall, fall silent, break off or answer wrongly.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::floor::{Floor, FloorOptions, FlushMode};
use super::measure::{self, Measured};
use super::plan::{Plan, tests::args};
use super::report::Report;
use super::stats::Failure;
use super::stop::Stop;
use super::workload::Workload;
use crate::base::Zxid;
use crate::wire::{ErrorCode, Stat, reply};

fn floor(flush: FlushMode, dir: &std::path::Path) -> Floor {
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let (dir, threads, data_bytes, children) = (dir.to_owned(), 1, 100, 0);
    Floor::start(&FloorOptions { addr, flush, dir, threads, data_bytes, children }).unwrap()
}

fn plan(hosts: &[SocketAddr], line: &str) -> Plan {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    Plan::from_args(&args(&format!("--hosts {} {line}", hosts.join(",")))).unwrap()
}

fn assert_clean(measured: &Measured, ops: u64) {
    let totals = &measured.totals;
    assert!(totals.failures.is_empty(), "{:?}", totals.failures);
    assert_eq!((totals.completed, totals.latency().len()), (ops, ops));
    assert!(measured.elapsed_secs > 0.0 && !measured.interrupted);
}

#[test]
fn every_workload_runs_clean_against_the_floor() {
    let floor = floor(FlushMode::None, &std::env::temp_dir());
    for workload in Workload::value_variants() {
        let name = format!("{workload:?}").to_lowercase();
        let line = format!("--workload {name} --count 2001 --conns 5 --depth 7 --keys 50 --threads 2");
        let plan = plan(&[floor.addr()], &line);
        let measured = measure::against_server(&plan, &Stop::default()).unwrap();
        assert_clean(&measured, 2001);
        assert_eq!(measured.totals.by_kind.len(), workload.kinds().len());
        let writes = workload.kinds().iter().any(|kind| kind.is_write());
        assert_eq!(measured.gap.is_some(), writes, "{name}");
        // 5 connections share 2001 operations as 401 + 4 × 400, the odd one being a read: each set has fired one event.
        let events = if *workload == Workload::Watch { 1000 } else { 0 };
        assert_eq!(measured.totals.events, events, "{name}");
    }
}

#[test]
fn flushed_writes_are_answered_in_order_inline_and_by_the_group_thread() {
    let dir = tempfile::tempdir().unwrap();
    for flush in [FlushMode::Inline, FlushMode::Group] {
        let floor = floor(flush, dir.path());
        // Reads behind writes must not overtake them; a reply out of order breaks the connection and would be counted.
        let plan = plan(&[floor.addr()], "--workload mix --writes 50 --count 400 --conns 4 --depth 8");
        let measured = measure::load(&plan, &Stop::default(), "test").unwrap();
        assert_clean(&measured, 400);
    }
}

#[test]
fn a_window_with_warm_up_ends_by_the_clock_and_has_a_timeline() {
    let floor = floor(FlushMode::None, &std::env::temp_dir());
    let plan = plan(&[floor.addr()], "--workload get --secs 0.3 --warmup 0.1 --conns 2 --timeline");
    let measured = measure::load(&plan, &Stop::default(), "test").unwrap();
    assert!((measured.elapsed_secs - 0.3).abs() < 1e-6);
    let totals = &measured.totals;
    assert_eq!(totals.timeline.len(), 3);
    assert_eq!(totals.timeline.iter().sum::<u64>(), totals.completed);
    assert!(totals.completed > 0);
}

#[test]
fn an_open_loop_makes_exactly_the_scheduled_requests() {
    let floor = floor(FlushMode::None, &std::env::temp_dir());
    let plan = plan(&[floor.addr()], "--rate 2000 --secs 0.3 --warmup 0 --conns 3 --threads 2");
    let measured = measure::load(&plan, &Stop::default(), "test").unwrap();
    assert_eq!(measured.totals.latency().len(), 600);
    assert!(measured.totals.failures.is_empty());
}

#[test]
fn the_floor_is_measured_beside_a_server_and_every_documented_field_is_there() {
    let server = floor(FlushMode::None, &std::env::temp_dir());
    let plan = plan(&[server.addr()], "--workload watch --count 100 --conns 2 --timeline");
    let stop = Stop::default();
    let measured = measure::against_server(&plan, &stop).unwrap();
    let beside = measure::against_floor(&plan, FlushMode::None, &std::env::temp_dir(), &stop).unwrap();
    let json = serde_json::to_value(Report::new(&plan, Some(measured), Some(beside))).unwrap();
    assert!(json["percent_of_floor"]["ops_per_sec"].as_f64().unwrap() > 0.0);
    let document = include_str!("../../docs/benchmarking.md");
    let mut names = Vec::new();
    field_names(&json, &mut names);
    for name in names {
        assert!(document.contains(&format!("`{name}`")), "benchmarking.md does not tell what {name} is");
    }
}

/// Names of all fields, but not of the tables whose keys are data.
fn field_names(value: &serde_json::Value, names: &mut Vec<String>) {
    for (name, inner) in value.as_object().into_iter().flatten() {
        names.push(name.clone());
        if name != "by_kind" && name != "failures_by_reason" {
            field_names(inner, names);
        }
    }
}

/// What a scripted server does about a request.
enum Step {
    Answer,
    Refuse(ErrorCode),
    Empty,
    Stall(Duration),
    Silence,
    BreakOff,
}

/// A server for one connection after another that answers setData as `script` says, by the number of the request.
fn scripted(script: impl FnMut(u64) -> Step + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut script = script;
        let mut requests = 0;
        for socket in listener.incoming() {
            // An error is the load generator hanging up.
            let _ = serve(socket.unwrap(), &mut script, &mut requests);
        }
    });
    addr
}

fn serve(
    mut socket: TcpStream,
    script: &mut impl FnMut(u64) -> Step,
    requests: &mut u64,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    read_frame(&mut socket)?;
    let mut out = Vec::new();
    reply::put_connect(&mut out, 10_000, 1, &[0; 16], Some(false));
    loop {
        socket.write_all(&out)?;
        out.clear();
        let frame = read_frame(&mut socket)?;
        let xid = i32::from_be_bytes(frame[..4].try_into().unwrap());
        *requests += 1;
        match script(*requests) {
            Step::Answer => reply::put_stat(&mut out, xid, Zxid(1), &Stat::default()),
            Step::Refuse(code) => reply::put_empty(&mut out, xid, Zxid(1), code),
            Step::Empty => reply::put_empty(&mut out, xid, Zxid(1), ErrorCode::Ok),
            Step::Silence => {}
            Step::BreakOff => return Ok(()),
            Step::Stall(time) => {
                std::thread::sleep(time); // the stall is what is tested
                reply::put_stat(&mut out, xid, Zxid(1), &Stat::default());
            }
        }
    }
}

fn read_frame(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut len = [0; 4];
    socket.read_exact(&mut len)?;
    let mut frame = vec![0; u32::from_be_bytes(len) as usize];
    socket.read_exact(&mut frame)?;
    Ok(frame)
}

#[test]
fn a_stall_shows_in_an_open_loop_as_all_the_requests_that_it_delayed() {
    let stall = |n| if n == 50 { Step::Stall(Duration::from_millis(200)) } else { Step::Answer };
    let plan = plan(&[scripted(stall)], "--rate 1000 --secs 0.4 --warmup 0 --conns 1 --depth 1");
    let measured = measure::load(&plan, &Stop::default(), "test").unwrap();
    let latency = measured.totals.latency();
    // 200 requests were due while it stalled, spread over 0..200 ms of waiting: half of them waited over 100 ms.
    let over_100_ms = latency.len() - latency.count_between(0, 100_000_000);
    assert!(over_100_ms >= 95, "{over_100_ms} of {}", latency.len());
    assert_eq!(latency.len(), 400);
    assert!(measured.gap.unwrap().ns >= 190_000_000, "{:?}", measured.gap);
}

#[test]
fn a_connection_that_breaks_is_counted_and_opened_again_on_the_next_host() {
    let floor = floor(FlushMode::None, &std::env::temp_dir());
    let breaking = scripted(|n| if n == 20 { Step::BreakOff } else { Step::Answer });
    let plan = plan(&[breaking, floor.addr()], "--conns 1 --depth 4 --count 500");
    let measured = measure::load(&plan, &Stop::default(), "test").unwrap();
    let totals = &measured.totals;
    let lost = totals.failures[&Failure::ConnectionLoss];
    assert!((1..=4).contains(&lost), "{lost} lost, at most what was in flight");
    assert_eq!((totals.completed + lost, totals.reconnects), (500, 1));
}

#[test]
fn a_server_that_falls_silent_ends_in_timeouts_not_in_a_hang() {
    let plan = plan(&[scripted(|_| Step::Silence)], "--conns 1 --depth 3 --count 9 --timeout 60 --secs 5");
    let measured = measure::load(&plan, &Stop::default(), "test").unwrap();
    assert_eq!(measured.totals.failures[&Failure::Timeout], 9);
    assert!(measured.totals.latency().min() >= 59_000_000);
    let report = Report::new(&plan, Some(measured), None);
    assert!(report.verdict().unwrap_err().to_string().contains("9 × timeout"));
}

#[test]
fn refusals_and_replies_of_the_wrong_shape_are_failures_by_reason() {
    let script = |n| match n % 4 {
        1 => Step::Refuse(ErrorCode::NoNode),
        2 => Step::Empty,
        _ => Step::Answer,
    };
    let plan = plan(&[scripted(script)], "--conns 1 --depth 2 --count 40");
    let totals = measure::load(&plan, &Stop::default(), "test").unwrap().totals;
    assert_eq!(totals.failures[&Failure::Code(-101)], 10);
    assert_eq!(totals.failures[&Failure::BadReply], 10);
    assert_eq!((totals.completed, totals.latency().len()), (20, 20));
}

#[test]
fn an_interrupt_ends_the_load_early_and_the_report_says_so() {
    let stop = Arc::new(Stop::default());
    let from_server = Arc::clone(&stop);
    let script = move |n| {
        if n == 100 {
            from_server.interrupt();
        }
        Step::Answer
    };
    let plan = plan(&[scripted(script)], "--conns 1 --depth 1 --secs 600 --warmup 0");
    let measured = measure::load(&plan, &stop, "test").unwrap();
    assert!(measured.interrupted && measured.elapsed_secs < 60.0);
    assert!(measured.totals.completed >= 99);
}

#[test]
fn a_start_that_fails_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = plan(&[closed], "--conns 3 --threads 2 --timeout 100");
    let error = measure::load(&plan, &Stop::default(), "test").unwrap_err();
    assert!(format!("{error:#}").contains("got a session within 100 ms"), "{error:#}");
    let error = measure::against_server(&plan, &Stop::default()).unwrap_err();
    assert!(format!("{error:#}").contains(&format!("cannot get a session from {closed}")), "{error:#}");
}
