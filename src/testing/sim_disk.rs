//! A disk that crashes: keeps what the process sees (*live*) and what survives a power cut (*durable*) apart, for the bytes of
//! files, for their sizes and for names. Deterministic: the same calls with the same seeds give the same images.
//!
//! - D1: every call that changes something or syncs is an operation with a number, from 0; [`SimDisk::crash_at`] makes that
//!   one and all after it fail.
//! - D2: [`SimDisk::after_crash`] gives a disk on which everything synced is there and of everything unsynced any subset:
//!   512-byte sectors in any of their unsynced versions, old or new size, names in any order that keeps each name's own.
//! - D3: images are cheap: pages are shared until written.
//! - D4: after a sync that failed, its pages count as clean: the next sync succeeds without writing them, reads show the new
//!   bytes, and after [`VfsFile::drop_cache`] the old ones (ext4's behaviour).
//!
//! Names move within one directory only. A crash in the middle of a write is a crash before the operation after it.

mod choose;
mod inode;
mod names;
mod vfs_impl;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::inode::{Inode, PAGE_BYTES};
use self::names::Names;
use crate::base::rng::Rng;

pub use self::choose::{Choose, Everything, Exhaustive, Nothing, Random};

/// Cases up to which [`SimDisk::for_each_image`] takes all of them: twelve torn sectors.
const EXHAUSTIVE_CASES_MAX: u64 = 1 << 12;

/// No limit; counting blocks is skipped.
const CAPACITY_PAGES_UNLIMITED: u64 = u64::MAX / PAGE_BYTES as u64;

/// The kinds of operations, for counting and for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    /// A file was created.
    Create,
    /// One directory was created.
    CreateDir,
    /// Bytes were written.
    Write,
    /// A file was cut or extended.
    SetSize,
    /// Blocks were reserved.
    Allocate,
    /// A file was synced.
    Sync,
    /// A name changed.
    Rename,
    /// A name was removed.
    Remove,
    /// A directory was synced.
    SyncDir,
    /// Bytes were read. Counted for faults, but not a numbered operation: it changes nothing.
    Read,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO. A failed write leaves a random prefix, a failed sync leaves its pages clean and perhaps written.
    Eio,
    /// ENOSPC, although there is room.
    Enospc,
    /// The call succeeds, but the write never reaches the disk, synced or not. Writes only.
    LostWrite,
}

/// A simulated disk. A clone is another handle to the same disk; [`SimDisk::fork`] makes an independent copy.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug)]
struct State {
    names: Names,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    ops: u64,
    counts: BTreeMap<OpKind, u64>,
    crash_at: Option<u64>,
    crashed: bool,
    faults: Vec<(OpKind, u64, Fault)>,
    capacity_pages: u64,
    locks: BTreeSet<PathBuf>,
    rng: Rng,
}

impl SimDisk {
    /// An empty disk without a limit. `seed` decides what faults leave behind.
    #[must_use]
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::from_state(State {
            names: Names::new(),
            inodes: BTreeMap::new(),
            next_inode: 0,
            ops: 0,
            counts: BTreeMap::new(),
            crash_at: None,
            crashed: false,
            faults: Vec::new(),
            capacity_pages: CAPACITY_PAGES_UNLIMITED,
            locks: BTreeSet::new(),
            rng: Rng::new(seed),
        })
    }

    /// Operation number `op` and every call after it fail.
    pub fn crash_at(&self, op: u64) {
        self.lock_state().crash_at = Some(op);
    }

    /// Every call from now on fails.
    pub fn crash_now(&self) {
        self.lock_state().crashed = true;
    }

    /// The `nth` call (from 0, counted from the disk's creation) of `kind` meets `fault`.
    pub fn fail_nth(&self, kind: OpKind, nth: u64, fault: Fault) {
        assert!(fault != Fault::LostWrite || kind == OpKind::Write, "only writes get lost");
        self.lock_state().faults.push((kind, nth, fault));
    }

    /// Blocks of 4 KiB are handed out until `bytes` are used; then writes fail with ENOSPC.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock_state().capacity_pages = bytes / PAGE_BYTES as u64;
    }

    /// Bit rot: flips bit `bit` (8 × byte + bit) of a file, on the disk and in the cache.
    pub fn flip_bit(&self, path: &Path, bit: u64) -> io::Result<()> {
        self.with_file(path, |inode| inode.flip_bit(bit))
    }

    /// Reads that touch the sector at `offset` fail with EIO until it is written again, also after a crash.
    pub fn set_bad_sector(&self, path: &Path, offset: u64) -> io::Result<()> {
        self.with_file(path, |inode| inode.set_bad_sector(offset))
    }

    /// Operations so far; the number of the next one.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.lock_state().ops
    }

    /// Calls of `kind` so far.
    #[must_use]
    pub fn count(&self, kind: OpKind) -> u64 {
        self.lock_state().counts.get(&kind).copied().unwrap_or(0)
    }

    /// True once a call has met the crash.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.lock_state().crashed
    }

    /// Sectors of all files that are not known to be durable.
    #[must_use]
    pub fn unsynced_sectors(&self) -> usize {
        self.lock_state().inodes.values().map(Inode::unsynced_sectors).sum()
    }

    /// The disk after a power cut now (or at the crash, if that came before); `chooser` decides what survived.
    #[must_use]
    pub fn after_crash(&self, chooser: &mut dyn Choose) -> SimDisk {
        SimDisk::from_state(self.lock_state().after_crash(chooser))
    }

    /// The disk after the process was killed: everything written is there (in the cache), synced or not. Unlike
    /// `after_crash(&mut Everything)`, a later power cut can still take what was never synced.
    #[must_use]
    pub fn after_kill(&self) -> SimDisk {
        let mut state = self.lock_state().clone();
        state.start_over();
        state.inodes.values_mut().for_each(|inode| inode.open = 0);
        state.collect();
        SimDisk::from_state(state)
    }

    /// An independent copy, with the same pending faults and crash.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        SimDisk::from_state(self.lock_state().clone())
    }

    /// Upper bound of the number of images that a crash now can leave: as if no choice made another one unnecessary.
    #[must_use]
    pub fn image_count_max(&self) -> u64 {
        let state = self.lock_state();
        let inodes = state.names.reachable();
        let choices = inodes.iter().map(|number| state.inodes[number].image_count_max());
        choices.fold(state.names.image_count_max(), u64::saturating_mul)
    }

    /// Calls `check` with the images that a crash now can leave: all of them when there are at most 4,096, else nothing,
    /// everything, and `random_count` random ones from `seed`. Returns how many.
    pub fn for_each_image(&self, random_count: u64, seed: u64, mut check: impl FnMut(SimDisk)) -> u64 {
        if self.image_count_max() <= EXHAUSTIVE_CASES_MAX {
            let (mut all, mut count) = (Exhaustive::new(), 0);
            while all.next_case() {
                check(self.after_crash(&mut all));
                count += 1;
            }
            return count;
        }
        check(self.after_crash(&mut Nothing));
        check(self.after_crash(&mut Everything));
        let mut seeds = Rng::new(seed);
        for _ in 0..random_count {
            check(self.after_crash(&mut Random::new(seeds.next_u64())));
        }
        random_count + 2
    }

    fn from_state(state: State) -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn with_file(&self, path: &Path, change: impl FnOnce(&mut Inode)) -> io::Result<()> {
        let mut state = self.lock_state();
        let inode = state.names.file(path)?;
        change(state.inode(inode));
        Ok(())
    }
}

impl State {
    fn after_crash(&self, chooser: &mut dyn Choose) -> State {
        let (names, survivors) = self.names.after_crash(chooser);
        let inodes = survivors.iter().map(|n| (*n, self.inodes[n].after_crash(chooser))).collect();
        State {
            names,
            inodes,
            next_inode: self.next_inode,
            ops: 0,
            counts: BTreeMap::new(),
            crash_at: None,
            crashed: false,
            faults: Vec::new(),
            capacity_pages: self.capacity_pages,
            locks: BTreeSet::new(),
            rng: self.rng.clone(),
        }
    }

    fn start_over(&mut self) {
        self.ops = 0;
        self.counts.clear();
        self.crash_at = None;
        self.crashed = false;
        self.faults.clear();
        self.locks.clear();
    }

    /// Counts an operation and says which fault it meets.
    fn begin(&mut self, kind: OpKind) -> io::Result<Option<Fault>> {
        self.check_alive()?;
        if kind != OpKind::Read {
            if self.crash_at == Some(self.ops) {
                self.crashed = true;
                return Err(crash_error());
            }
            self.ops += 1;
        }
        let count = self.counts.entry(kind).or_default();
        let nth = *count;
        *count += 1;
        Ok(self.faults.iter().find(|(k, n, _)| (*k, *n) == (kind, nth)).map(|(_, _, fault)| *fault))
    }

    /// Like `begin`, for operations that a fault leaves undone.
    fn begin_whole(&mut self, kind: OpKind) -> io::Result<()> {
        self.begin(kind)?.map_or(Ok(()), |fault| Err(fault.error()))
    }

    fn check_alive(&self) -> io::Result<()> {
        if self.crashed { Err(crash_error()) } else { Ok(()) }
    }

    fn inode(&mut self, number: u64) -> &mut Inode {
        self.inodes.get_mut(&number).expect("inodes with a name or a handle are kept")
    }

    fn free_pages(&self) -> u64 {
        let in_use = |inode: &&Inode| inode.linked || inode.open > 0;
        let used: u64 = self.inodes.values().filter(in_use).map(Inode::allocated).sum();
        self.capacity_pages.saturating_sub(used)
    }

    /// Bytes of a write at `offset` that fit onto the disk.
    fn bytes_that_fit(&self, number: u64, offset: u64, len: usize) -> usize {
        if self.capacity_pages == CAPACITY_PAGES_UNLIMITED {
            return len;
        }
        let mut holes = self.inodes[&number].holes(offset, offset + len as u64);
        let first_without_block = holes.nth(self.free_pages() as usize);
        first_without_block.map_or(len, |page| (page * PAGE_BYTES as u64).saturating_sub(offset) as usize)
    }

    /// Forgets inodes that no name, handle or crash leads to.
    fn collect(&mut self) {
        let reachable = self.names.reachable();
        self.inodes.retain(|number, inode| inode.open > 0 || reachable.contains(number));
    }
}

impl Fault {
    fn error(self) -> io::Error {
        let errno = match self {
            Fault::Eio | Fault::LostWrite => rustix::io::Errno::IO,
            Fault::Enospc => rustix::io::Errno::NOSPC,
        };
        errno.into()
    }
}

fn crash_error() -> io::Error {
    io::Error::other("the simulated disk has crashed")
}

#[cfg(test)]
mod tests;
