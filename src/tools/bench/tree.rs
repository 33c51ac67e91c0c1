//! The subtree a run works in: built before, removed after (B4).

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::client::{Client, code_name};
use super::plan::Plan;
use super::stop::Stop;
use super::template::{data, dir_path, leaf_path, put_create_tail};
use super::workload::{Workload, dir};
use crate::wire::jute::{PutJute, Reader};
use crate::wire::{ErrorCode, OpCode};

/// Pause before a session for cleaning up is tried for again.
const RETRY_EVERY: Duration = Duration::from_millis(100);
const NODE_EXISTS: i32 = ErrorCode::NodeExists.to_i32();
const NO_NODE: i32 = ErrorCode::NoNode.to_i32();

/// Creates the prefix and what the workload needs below it.
pub(super) fn build(plan: &Plan, stop: &Stop) -> anyhow::Result<()> {
    let mut client = Client::connect(&plan.hosts, plan.timeout)?;
    create_prefix(plan, &mut client)?;
    // From here on the subtree is this run's: what fails half-way is removed again.
    let built = build_below(plan, &mut client);
    client.close();
    if built.is_err() && !plan.keep {
        // The first error is the one to tell; what this one leaves is named in it.
        let _ = remove(plan, stop);
    }
    built.with_context(|| format!("cannot build {}", plan.prefix))
}

fn create_prefix(plan: &Plan, client: &mut Client) -> anyhow::Result<()> {
    let path = &plan.prefix;
    match create(client, path, &[])? {
        0 => Ok(()),
        NODE_EXISTS if plan.keep => Ok(()),
        NODE_EXISTS => bail!(
            "{path} exists already, and a run removes its subtree at the end: choose another --prefix, or add --keep"
        ),
        NO_NODE => bail!("the parent of {path} does not exist; create it first"),
        code => bail!("cannot create {path}: {}", code_name(code)),
    }
}

fn build_below(plan: &Plan, client: &mut Client) -> anyhow::Result<()> {
    let (prefix, shape) = (&plan.prefix, &plan.shape);
    match shape.workload {
        Workload::Set | Workload::Get | Workload::Mix | Workload::Multi | Workload::Watch => {
            create_dirs(client, prefix, dir::KEYS, 1)?;
            create_leaves(client, prefix, dir::KEYS, shape.keys, shape.size)
        }
        Workload::Create => create_dirs(client, prefix, dir::CREATED, plan.conns as u32),
        Workload::Churn => create_dirs(client, prefix, dir::EPHEMERAL, 1),
        Workload::List => {
            create_dirs(client, prefix, dir::LISTED, 1)?;
            create_leaves(client, prefix, dir::LISTED, shape.keys, 0)
        }
    }
}

fn create_dirs(client: &mut Client, prefix: &str, tag: char, count: u32) -> anyhow::Result<()> {
    let mut check = |code| accept(code, &[0, NODE_EXISTS], "create a directory");
    for number in 0..count {
        let path = dir_path(prefix, tag, number);
        client.add(OpCode::Create, |out| put_create(out, &path, &[]), &mut check)?;
    }
    client.flush(&mut check)
}

fn create_leaves(
    client: &mut Client,
    prefix: &str,
    tag: char,
    count: u64,
    size: usize,
) -> anyhow::Result<()> {
    let data = data(size);
    let bar = progress("preparing", count);
    let mut exist = false;
    let mut check = |code| {
        exist |= code == NODE_EXISTS;
        bar.inc(1);
        accept(code, &[0, NODE_EXISTS], "create a key")
    };
    for leaf in 0..count {
        let path = leaf_path(prefix, tag, 0, leaf);
        client.add(OpCode::Create, |out| put_create(out, &path, &data), &mut check)?;
    }
    client.flush(&mut check)?;
    if exist {
        // A subtree kept from an earlier run may hold data of another size.
        let mut check = |code| accept(code, &[0], "set a key");
        for leaf in 0..count {
            let path = leaf_path(prefix, tag, 0, leaf);
            let body = |out: &mut Vec<u8>| {
                out.put_ustring(&path);
                out.put_buffer(Some(&data));
                out.put_int(-1);
            };
            client.add(OpCode::SetData, body, &mut check)?;
        }
        client.flush(&mut check)?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Removes the subtree: the prefix, its directories, their leaves. What is not there any more is fine.
pub(super) fn remove(plan: &Plan, stop: &Stop) -> anyhow::Result<()> {
    let mut client = connect_again(plan, stop)?;
    let bar = progress("cleaning up", 0);
    for name in children(&mut client, &plan.prefix)? {
        let parent = format!("{}/{name}", plan.prefix);
        let leaves = children(&mut client, &parent)?;
        bar.inc_length(leaves.len() as u64);
        let mut check = |code| {
            bar.inc(1);
            ensure!(!stop.is_urgent(), "interrupted");
            accept(code, &[0, NO_NODE], "delete a node")
        };
        for leaf in leaves {
            let path = format!("{parent}/{leaf}");
            client.add(OpCode::Delete, |out| put_delete(out, &path), &mut check)?;
        }
        client.add(OpCode::Delete, |out| put_delete(out, &parent), &mut check)?;
        client.flush(&mut check)?;
    }
    let (code, _) = client.call(OpCode::Delete, |out| put_delete(out, &plan.prefix))?;
    bar.finish_and_clear();
    client.close();
    accept(code, &[0, NO_NODE], "delete the prefix")
}

/// A session, tried for as long as `--timeout`: the run may have ended in the middle of a failover.
fn connect_again(plan: &Plan, stop: &Stop) -> anyhow::Result<Client> {
    let deadline = Instant::now() + plan.timeout;
    loop {
        match Client::connect(&plan.hosts, plan.timeout) {
            Ok(client) => return Ok(client),
            Err(e) if stop.is_urgent() || Instant::now() >= deadline => return Err(e),
            Err(_) => std::thread::park_timeout(RETRY_EVERY),
        }
    }
}

fn children(client: &mut Client, path: &str) -> anyhow::Result<Vec<String>> {
    let (code, body) = client.call(OpCode::GetChildren, |out| {
        out.put_ustring(path);
        out.put_boolean(false);
    })?;
    if code == NO_NODE {
        return Ok(Vec::new());
    }
    accept(code, &[0], "list the children")?;
    let mut r = Reader::new(&body);
    let count = r.vector(4)?.unwrap_or(0);
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(r.ustring()?.to_owned());
    }
    Ok(names)
}

fn create(client: &mut Client, path: &str, data: &[u8]) -> anyhow::Result<i32> {
    Ok(client.call(OpCode::Create, |out| put_create(out, path, data))?.0)
}

fn put_create(out: &mut Vec<u8>, path: &str, data: &[u8]) {
    out.put_ustring(path);
    put_create_tail(out, data, 0);
}

fn put_delete(out: &mut Vec<u8>, path: &str) {
    out.put_ustring(path);
    out.put_int(-1);
}

fn accept(code: i32, good: &[i32], what: &str) -> anyhow::Result<()> {
    ensure!(good.contains(&code), "cannot {what}: {}", code_name(code));
    Ok(())
}

/// A bar on standard error; nothing is drawn where that is not a terminal.
fn progress(what: &'static str, len: u64) -> ProgressBar {
    let bar = ProgressBar::new(len);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    bar.set_style(style.expect("a constant template"));
    bar.set_message(what);
    bar
}
