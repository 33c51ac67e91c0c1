//! Lists that grow by transactions are one list for everybody, whatever zxids the servers show: each append asks for the version that its client
//! has read, and writes two nodes at once (Elle's list-append; a list says itself in which order it was written).

use std::collections::BTreeMap;

use super::super::clients::{Answer, Op};
use super::super::{Violation, World, violated};
use crate::node::auth::open_acl;
use crate::testing::world::body;
use crate::wire::jute::Reader;
use crate::wire::request::{MultiHeader, Request};
use crate::wire::{OpCode, Stat};

/// Entries of a list, about; then the next one begins.
const ENTRIES_MAX: usize = 40;

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// Acknowledged at this moment.
    Done(u64),
    Failed,
    Unknown,
}

/// An append that was asked for.
#[derive(Clone, Debug)]
pub(in super::super) struct Append {
    list: u64,
    entry: String,
    from: u64,
    fate: Fate,
}

/// What a client saw of a list: two nodes, read at once.
#[derive(Clone, Debug)]
pub(in super::super) struct ListRead {
    client: usize,
    list: u64,
    entries: [Option<String>; 2],
    /// When the sync before it was sent, if one was.
    synced: Option<u64>,
    to: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(in super::super) struct History {
    entries: u64,
    appends: Vec<Append>,
    pub(in super::super) reads: Vec<ListRead>,
}

/// What a client knows of the list it writes to.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Seen {
    list: u64,
    /// The version and the entries; the outer `None` is nothing known, the inner one no node.
    state: Option<Option<(i32, String)>>,
}

fn path(list: u64, half: usize) -> String {
    format!("/l{list}{}", ["a", "b"][half])
}

/// Which list, and which half, a path is.
fn list_of(path: &str) -> Option<(u64, usize)> {
    let number = path.strip_prefix("/l")?;
    let (number, half) = number.split_at(number.len().checked_sub(1)?);
    Some((number.parse().ok()?, usize::from(half == "b")))
}

impl Seen {
    pub(in super::super) const fn is_known(&self) -> bool {
        self.state.is_some()
    }

    /// A request that reads both halves.
    pub(in super::super) fn read(&self) -> Vec<u8> {
        body::multi(&[0, 1].map(|half| (OpCode::GetData, body::path_watch(&path(self.list, half), false))))
    }

    /// A request that appends an entry to what is known.
    pub(in super::super) fn append(&mut self, entry: u64) -> Vec<u8> {
        let full = |entries: &str| entries.matches(',').count() >= ENTRIES_MAX;
        if self.state.as_ref().is_some_and(|state| state.as_ref().is_some_and(|(_, entries)| full(entries))) {
            (self.list, self.state) = (self.list + 1, Some(None));
        }
        let [a, b] = [path(self.list, 0), path(self.list, 1)];
        match self.state.as_ref().expect("it is known") {
            None => {
                let entries = format!("{entry},");
                let create = |path: &str| {
                    (OpCode::Create, body::create_with(path, Some(entries.as_bytes()), 0, &open_acl()))
                };
                body::multi(&[create(&a), create(&b)])
            }
            Some((version, entries)) => {
                let entries = format!("{entries}{entry},");
                let set = |path: &str| (OpCode::SetData, body::set_data(path, Some(entries.as_bytes()), -1));
                body::multi(&[(OpCode::Check, body::path_int(&a, *version)), set(&a), set(&b)])
            }
        }
    }

    /// An answer teaches: a read what there is, an append that something is there now.
    pub(in super::super) fn note(&mut self, op: &Op, answer: &Answer<'_>) {
        match op.op {
            OpCode::MultiRead => {
                let about = lists_in(&op.body).first().map(|(list, _)| *list);
                if let (Some(list), Some([a, _])) = (about, halves(answer.body))
                    && list >= self.list
                {
                    (self.list, self.state) = (list, Some(a));
                }
            }
            OpCode::Multi if lists_in(&op.body).len() >= 2 => self.state = None,
            _ => {}
        }
    }
}

/// The lists that a multi is about, and what it writes there.
fn lists_in(multi: &[u8]) -> Vec<(u64, Option<String>)> {
    let about = |op: OpCode| match Request::read(op, multi) {
        Ok(Request::Multi(ops) | Request::MultiRead(ops)) => ops
            .iter()
            .filter_map(|(_, part)| {
                let (path, data) = match part {
                    Request::Create(create) => (create.path, create.data),
                    Request::SetData { path, data, .. } => (path, data),
                    Request::GetData { path, .. } => (path, None),
                    _ => return None,
                };
                let data = data.map(|data| String::from_utf8_lossy(data).into_owned());
                Some((list_of(path)?.0, data))
            })
            .collect(),
        _ => Vec::new(),
    };
    let writes = about(OpCode::Multi);
    if writes.is_empty() { about(OpCode::MultiRead) } else { writes }
}

/// Both results of a read: version and entries; `None` for an answer that is none.
fn halves(answer: &[u8]) -> Option<[Option<(i32, String)>; 2]> {
    let mut r = Reader::new(answer);
    let mut half = || {
        let header = MultiHeader::read(&mut r).ok()?;
        if header.op == OpCode::Error.to_i32() {
            r.int().ok()?;
            return Some(None);
        }
        let entries = String::from_utf8_lossy(r.buffer().ok()??).into_owned();
        Some(Some((Stat::read(&mut r).ok()?.version, entries)))
    };
    Some([half()?, half()?])
}

impl ListRead {
    pub(in super::super) fn of(
        client: usize,
        request: &[u8],
        answer: &[u8],
        synced: Option<u64>,
        to: u64,
    ) -> Option<ListRead> {
        let list = lists_in(request).first()?.0;
        let entries = halves(answer)?.map(|half| half.map(|(_, entries)| entries));
        Some(ListRead { client, list, entries, synced, to })
    }
}

impl History {
    pub(in super::super) fn next_entry(&mut self) -> u64 {
        self.entries += 1;
        self.entries
    }

    /// What became of a request, if it is an append.
    pub(in super::super) fn note_append(&mut self, op: &Op, fate: Fate) {
        if op.op != OpCode::Multi {
            return;
        }
        if let Some((list, Some(entries))) = lists_in(&op.body).pop() {
            let entry = entries.trim_end_matches(',').rsplit(',').next().unwrap_or_default().to_owned();
            self.appends.push(Append { list, entry, from: op.moment, fate });
        }
    }

    /// What is there at the end, when nothing is under way any more.
    fn read_at_end(&mut self, find: impl Fn(&str) -> Option<String>, to: u64) {
        let lists: std::collections::BTreeSet<u64> = self.appends.iter().map(|append| append.list).collect();
        for list in lists {
            let entries = [0, 1].map(|half| find(&path(list, half)));
            self.reads.push(ListRead { client: usize::MAX, list, entries, synced: Some(to), to });
        }
    }
}

/// At the end: with what the first node holds as the last read of all.
pub(in super::super) fn check(world: &mut World) -> Result<(), Violation> {
    let to = world.model.moment();
    let process = world.nodes[0].process.as_ref().expect("it serves");
    let tree = process.tree.read();
    let find = |path: &str| {
        tree.find(path).map(|node| String::from_utf8_lossy(node.data().unwrap_or_default()).into_owned())
    };
    world.model.lists.read_at_end(find, to);
    world.counts.appends += world.model.lists.appends.len() as u64;
    world.counts.list_reads += world.model.lists.reads.len() as u64;
    check_history(&world.model.lists).or_else(violated)
}

fn check_history(history: &History) -> Result<(), String> {
    let mut lists: BTreeMap<u64, (Vec<&Append>, Vec<&ListRead>)> = BTreeMap::new();
    for append in &history.appends {
        lists.entry(append.list).or_default().0.push(append);
    }
    for read in &history.reads {
        lists.entry(read.list).or_default().1.push(read);
    }
    let told = |(list, (appends, reads)): (u64, (Vec<&Append>, Vec<&ListRead>))| {
        check_list(&appends, &reads).map_err(|why| format!("list {list}: {why}"))
    };
    lists.into_iter().try_for_each(told)
}

fn check_list(appends: &[&Append], reads: &[&ListRead]) -> Result<(), String> {
    for read in reads {
        if read.entries[0] != read.entries[1] {
            return Err(format!("a read sees part of a transaction: {:?}", read.entries));
        }
    }
    let entries_of = |read: &ListRead| read.entries[0].clone().unwrap_or_default();
    let last = reads.iter().map(|read| entries_of(read)).max_by_key(String::len).unwrap_or_default();
    let order: Vec<&str> = last.split_terminator(',').collect();
    let find = |append: &Append| order.iter().filter(|entry| **entry == append.entry).count();
    for append in appends {
        let count = find(append);
        let fine = match append.fate {
            Fate::Done(_) => count == 1,
            Fate::Failed => count == 0,
            Fate::Unknown => count <= 1,
        };
        if !fine {
            return Err(format!("{} is there {count} times, and is {:?}", append.entry, append.fate));
        }
    }
    let by_entry: BTreeMap<&str, &Append> = appends.iter().map(|append| (&*append.entry, *append)).collect();
    let known = |entry: &str| by_entry.get(entry).copied().ok_or_else(|| format!("nobody appended {entry}"));
    // Real time: nothing stands before what was acknowledged when it was asked for.
    let mut latest_begin = 0;
    for entry in &order {
        let append = known(entry)?;
        if let Fate::Done(to) = append.fate
            && to < latest_begin
        {
            return Err(format!(
                "{entry} was there at {to}, and stands behind one asked for at {latest_begin}"
            ));
        }
        latest_begin = latest_begin.max(append.from);
    }
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for read in reads {
        let entries = entries_of(read);
        if !last.starts_with(&entries) {
            return Err(format!("two orders: {entries} and {last}"));
        }
        let count = entries.matches(',').count();
        let before = seen.insert(read.client, count).unwrap_or(0);
        if count < before {
            return Err(format!("client {} saw {before} entries, then {count}", read.client));
        }
        if let Some(entry) = order[..count].iter().find(|entry| by_entry[*entry].from > read.to) {
            return Err(format!("{entry} is read at {}, before it was asked for", read.to));
        }
        let is_old = |append: &&Append| matches!((append.fate, read.synced), (Fate::Done(to), Some(from)) if to < from);
        if let Some(entry) = order[count..].iter().find(|entry| is_old(&by_entry[*entry])) {
            return Err(format!("{entry} was there, and is not read at {} behind a sync", read.to));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(entry: &str, from: u64, fate: Fate) -> Append {
        Append { list: 0, entry: entry.to_owned(), from, fate }
    }

    fn read(client: usize, entries: &str, synced: Option<u64>, to: u64) -> ListRead {
        let entries = [0, 1].map(|_| (!entries.is_empty()).then(|| entries.to_owned()));
        ListRead { client, list: 0, entries, synced, to }
    }

    fn told(appends: &[Append], reads: &[ListRead]) -> Result<(), String> {
        let history = History { entries: 0, appends: appends.to_vec(), reads: reads.to_vec() };
        check_history(&history)
    }

    #[test]
    fn lists_that_are_not_one_are_noticed() {
        let appends =
            [append("1", 1, Fate::Done(3)), append("2", 4, Fate::Done(6)), append("3", 5, Fate::Unknown)];
        let (full, first) = (read(0, "1,2,3,", Some(9), 10), read(1, "1,", Some(4), 8));
        assert_eq!(told(&appends, &[first.clone(), full.clone()]), Ok(()));
        let bad: [(&[ListRead], &str); 7] = [
            (&[read(0, "1,", Some(9), 10)], "2 is there 0 times"),
            (&[read(0, "1,2,2,", Some(9), 10)], "2 is there 2 times"),
            (&[read(0, "2,1,", Some(9), 10)], "stands behind"),
            (&[full.clone(), read(1, "1,3,", None, 11)], "two orders"),
            (&[full.clone(), read(0, "1,", None, 11)], "saw 3 entries, then 1"),
            (&[read(1, "1,", Some(7), 8), full.clone()], "is not read at 8 behind a sync"),
            (&[read(1, "1,2,", None, 2), full.clone()], "before it was asked for"),
        ];
        for (reads, why) in bad {
            let said = told(&appends, reads).expect_err(why);
            assert!(said.contains(why), "{said}, expected {why}");
        }
        let torn = ListRead { entries: [Some("1,".to_owned()), None], ..first };
        assert!(told(&appends, &[torn, full.clone()]).expect_err("torn").contains("part of a transaction"));
        let failed =
            [append("1", 1, Fate::Done(3)), append("2", 4, Fate::Failed), append("3", 5, Fate::Unknown)];
        assert!(told(&failed, &[full]).expect_err("failed").contains("2 is there 1 times"));
    }
}
