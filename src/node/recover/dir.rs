//! A node's directory while it is held: the lock, and the superblock that changes with the node's life.
//!
//! - D1: what a call here has stored is durable when it returns; after an error it may or may not be, and the process stops (R10).
//! - D2: what is known to be committed is never cut or replaced away.
//! - D3: the log and the snapshots are cut, or replaced, as one: intent, snapshots that hold more, log, intent cleared (R3, R9).
//! - D4: who has taken over a leader's history has all that counts: [`Recall::Whole`].
//! - D5: the accepted epoch of a new directory is one that was promised with effect: a promise that did not count makes it a lost one.

use std::io;
use std::path::Path;

use thiserror::Error;

use super::set_aside::{self, DAMAGED_PREFIX};
use super::{NodePlaces, RecoverError, RecoverEvent, RecoverOptions, RecoverShell};
use crate::base::rng::Rng;
use crate::base::{Epoch, LogPos, Zxid};
use crate::storage::log::{Appender, Flusher, LogError};
use crate::storage::snapshot::{SnapshotError, SnapshotStore, VerifyReport};
use crate::storage::superblock::{Recall, Superblock, SuperblockError, SuperblockStore};
use crate::storage::vfs::{Vfs, VfsLock};

/// Lock and superblock of a node, this process's until it is dropped.
#[derive(Debug)]
pub struct NodeDir {
    superblock: SuperblockStore,
    _lock: Box<dyn VfsLock>,
}

/// Why a node's history cannot be cut.
#[derive(Debug, Error)]
pub enum TruncateError {
    /// Nothing that stays would reach from the snapshots to the log. Nothing was changed.
    #[error(
        "no snapshot up to {to} stays, and the log starts after {log_base}: the whole state must be fetched instead"
    )]
    NoCover {
        /// Where the cut should be.
        to: Zxid,
        /// What the log starts after.
        log_base: Zxid,
    },
    /// What should go is committed. Nothing was changed.
    #[error("the log cannot be cut at {to}: {committed} is committed")]
    Committed {
        /// Where the cut should be.
        to: Zxid,
        /// The last transaction that was noted as committed.
        committed: Zxid,
    },
    /// Snapshots cannot be judged. Nothing was changed.
    #[error("{0}")]
    Snapshots(#[from] SnapshotError),
    /// `NotFound` changed nothing; after anything else the process must stop, and the next start finishes the cut.
    #[error("{0}")]
    Log(#[from] LogError),
}

/// Why a node's history cannot be replaced by a whole state.
#[derive(Debug, Error)]
pub enum ResetError {
    /// There is no whole snapshot of exactly that state. Nothing was changed.
    #[error("the log cannot be replaced by the snapshot at {base}: {what}")]
    NoCover {
        /// Where the state should be.
        base: Zxid,
        /// What is wrong with the snapshot.
        what: String,
    },
    /// The state lacks something that is committed. Nothing was changed.
    #[error("the log cannot be replaced by a state at {base}: {committed} is committed")]
    Committed {
        /// Where the state ends.
        base: Zxid,
        /// The last transaction that was noted as committed.
        committed: Zxid,
    },
    /// `NoSpace` changed nothing; after anything else the process must stop, and the next start finishes the replacement.
    #[error("{0}")]
    Log(#[from] LogError),
}

/// Why a state cannot be announced or withdrawn.
#[derive(Debug, Error)]
pub enum AnnounceError {
    /// Snapshots cannot be looked at, or removed.
    #[error("{0}")]
    Snapshots(#[from] SnapshotError),
    /// It cannot be stored.
    #[error("{0}")]
    Superblock(#[from] SuperblockError),
}

impl From<io::Error> for AnnounceError {
    fn from(error: io::Error) -> AnnounceError {
        AnnounceError::Snapshots(error.into())
    }
}

impl NodeDir {
    /// Takes the lock and opens the superblock, or makes one where there is no data; finishes setting a history aside.
    pub(super) fn open(
        vfs: &dyn Vfs,
        places: &NodePlaces,
        options: &RecoverOptions,
        seeds: &mut Rng,
        shell: &RecoverShell<'_>,
    ) -> Result<NodeDir, RecoverError> {
        let lock = vfs.lock(&places.data.join("lock")).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => RecoverError::InUse { path: places.data.clone() },
            _ => RecoverError::Locked { path: places.data.clone(), source },
        })?;
        let data_present = holds_data(vfs, places)?;
        let fail = |source| RecoverError::superblock(places, source);
        let blank = Superblock::new(seeds.next_u64(), seeds.next_u64(), options.server_id);
        let superblock = match SuperblockStore::open(vfs, &places.data, data_present) {
            Ok(Some((superblock, copies))) => {
                (shell.observe)(&RecoverEvent::Superblock { copies: &copies });
                superblock
            }
            Ok(None) => {
                let recall = if options.has_peers { Recall::New } else { Recall::Whole };
                SuperblockStore::format(vfs, &places.data, Superblock { recall, ..blank }).map_err(fail)?
            }
            Err(damage)
                if options.has_peers && set_aside::is_superblock_damaged(vfs, &places.data, &damage) =>
            {
                (shell.observe)(&RecoverEvent::SetAside { damage: &fail(damage) });
                set_aside::move_superblock(vfs, &places.data, blank.node_id)
                    .map_err(|source| RecoverError::Directory { path: places.data.clone(), source })?;
                SuperblockStore::format(vfs, &places.data, blank.without_history()).map_err(fail)?
            }
            Err(error) => return Err(fail(error)),
        };
        let (found, expected) = (superblock.value().server_id, options.server_id);
        if found != expected {
            return Err(RecoverError::WrongServer { dir: places.data.clone(), found, expected });
        }
        let dir = NodeDir { superblock, _lock: lock };
        dir.finish_setting_aside(vfs, places)?;
        Ok(dir)
    }

    /// Gives the history up, durably (B8): what follows finds a directory without any.
    pub(super) fn lose_history(&mut self, vfs: &dyn Vfs, places: &NodePlaces) -> Result<(), RecoverError> {
        let blank = self.superblock().without_history();
        self.superblock.store(blank).map_err(|source| RecoverError::superblock(places, source))?;
        self.finish_setting_aside(vfs, places)
    }

    fn finish_setting_aside(&self, vfs: &dyn Vfs, places: &NodePlaces) -> Result<(), RecoverError> {
        if self.superblock().recall != Recall::Clearing {
            return Ok(());
        }
        set_aside::move_history(vfs, places, self.superblock(), self.superblock.generation())
    }

    /// What is on the disk.
    #[must_use]
    pub fn superblock(&self) -> &Superblock {
        self.superblock.value()
    }

    /// True when there has been a log: one that is missing then is a loss.
    #[must_use]
    pub fn has_history(&self) -> bool {
        self.superblock.generation() > 1 && self.superblock().recall != Recall::Clearing
    }

    /// Before the first append of a life (B5); stored in any case, so that from the first life on there is a history. Ends a
    /// pending truncation or reset, which opening the log has finished, and setting a history aside: there is a new log now.
    pub(super) fn log_grows(&mut self) -> Result<(), SuperblockError> {
        self.change(|value| {
            Pending::Nothing.put(value);
            value.recall = if value.recall == Recall::Clearing { Recall::Lost } else { value.recall };
        })?;
        assert!(self.has_history(), "B5");
        Ok(())
    }

    /// Promises not to follow, or lead, an epoch before `epoch` (rule R8). Returns before anyone is told.
    ///
    /// # Errors
    /// The promise may or may not be stored: it must not be given, and the process stops.
    pub fn accept_epoch(&mut self, epoch: Epoch) -> Result<(), SuperblockError> {
        assert!(epoch >= self.superblock().epoch_accepted, "a promise is never taken back");
        self.change(|value| value.epoch_accepted = epoch)
    }

    /// The same of a server whose promise does not count, because it may have forgotten something (D5): what it knows from now on of epochs is no
    /// reason to take it for one that was there from the beginning.
    ///
    /// # Errors
    /// As for [`NodeDir::accept_epoch`].
    pub fn accept_epoch_uncounted(&mut self, epoch: Epoch) -> Result<(), SuperblockError> {
        assert!(epoch >= self.superblock().epoch_accepted, "a promise is never taken back");
        self.change(|value| {
            value.epoch_accepted = epoch;
            value.recall = if value.recall == Recall::New { Recall::Lost } else { value.recall };
        })
    }

    /// The history of the leader of `epoch`, which was accepted before, is durable here (rule R1: not before that; D4).
    ///
    /// # Errors
    /// It may or may not be stored: nothing is acknowledged, and the process stops.
    pub fn enter_epoch(&mut self, epoch: Epoch) -> Result<(), SuperblockError> {
        assert!(epoch <= self.superblock().epoch_accepted, "an epoch is accepted before it is entered");
        assert!(epoch >= self.superblock().epoch_current, "epochs only grow");
        self.change(|value| {
            value.epoch_current = epoch;
            value.recall = Recall::Whole;
        })
    }

    /// Takes note that everything up to `zxid` is committed *and durable here* (applied, in short): a start goes up to there without
    /// asking anyone, and refuses a log that ends before it. Stores only what is news; call it now and then, not for each commit.
    ///
    /// # Errors
    /// It may or may not be stored; the process stops.
    pub fn note_committed(&mut self, zxid: Zxid) -> Result<(), SuperblockError> {
        if zxid <= self.superblock().committed {
            return Ok(());
        }
        self.change(|value| value.committed = zxid)
    }

    /// After the last flush of a life: writes down where the log ends, so that the next start can tell damage from a torn tail, and
    /// how much of it is committed ([`NodeDir::note_committed`]), all in one write.
    ///
    /// # Errors
    /// The clean stop is not recorded, or may not be: the next start treats this life as one that crashed.
    pub fn clean_stop(&mut self, end: LogPos, committed: Zxid) -> Result<(), SuperblockError> {
        assert_eq!(self.pending().target(), None, "a cut ends before its process does");
        self.change(|value| {
            value.clean_stop = Some(end);
            value.committed = value.committed.max(committed);
        })
    }

    /// Cuts the node's durable history behind `to`: intent, snapshots above, log, intent cleared. The tree must be made anew
    /// ([`super::rebuild`]).
    ///
    /// # Errors
    /// See [`TruncateError`].
    pub fn truncate(
        &mut self,
        appender: &mut Appender,
        flusher: &mut Flusher,
        snapshots: &SnapshotStore,
        to: Zxid,
    ) -> Result<(), TruncateError> {
        let (log_base, committed) = (appender.base(), self.superblock().committed);
        assert_eq!(self.pending(), Pending::Nothing, "one at a time");
        if to < committed {
            return Err(TruncateError::Committed { to, committed });
        }
        if !is_covered(snapshots, log_base, to)? {
            return Err(TruncateError::NoCover { to, log_base });
        }
        appender.truncate(flusher, to, &mut self.intent_store(snapshots, Pending::Truncate))?;
        assert_eq!(self.pending(), Pending::Nothing, "T1");
        Ok(())
    }

    /// To be called before the snapshot of a whole state at `base` that came from elsewhere gets its name: until
    /// [`NodeDir::reset`], the log may end before it, and a start that finds it announced removes it and goes on as if it had never
    /// come. False when that state is here already, as a whole snapshot: then nothing is announced, and nothing is to be published.
    /// A snapshot of that name that is of no use goes first.
    ///
    /// From here to [`NodeDir::reset`] or [`NodeDir::withdraw_state`] no other snapshot is taken, and neither snapshots nor log are
    /// purged: the announced one covers nothing yet.
    ///
    /// # Errors
    /// It may or may not be announced: nothing may be published, and the process stops.
    pub fn announce_state(&mut self, snapshots: &SnapshotStore, base: Zxid) -> Result<bool, AnnounceError> {
        assert_eq!(self.pending(), Pending::Nothing, "one at a time");
        if snapshots.zxids()?.contains(&base) {
            match snapshots.verify(base)? {
                report if is_exactly(&report, base) => return Ok(false),
                _ => snapshots.remove(&[base])?,
            }
        }
        self.store_pending(Pending::State(base))?;
        Ok(true)
    }

    /// Gives up a state that was announced, published or not. Nothing happens when none was.
    ///
    /// # Errors
    /// The next start does it; the process stops.
    pub fn withdraw_state(&mut self, snapshots: &SnapshotStore) -> Result<(), AnnounceError> {
        let Pending::State(base) = self.pending() else { return Ok(()) };
        if snapshots.zxids()?.contains(&base) {
            snapshots.remove(&[base])?;
        }
        Ok(self.store_pending(Pending::Nothing)?)
    }

    /// Replaces the node's durable history by the whole state at `base`, which has been announced and published as a snapshot:
    /// intent, snapshots that may hold anything later, log, intent cleared. That snapshot is read back first, all of it. Older snapshots stay; they
    /// cannot be taken for the whole state, because the log says that it starts after `base`, and a start refuses the gap (B3).
    ///
    /// # Errors
    /// See [`ResetError`]; where nothing was changed, the state is still announced.
    pub fn reset(
        &mut self,
        appender: &mut Appender,
        flusher: &mut Flusher,
        snapshots: &SnapshotStore,
        base: Zxid,
    ) -> Result<(), ResetError> {
        let (pending, committed) = (self.pending(), self.superblock().committed);
        assert!([Pending::Nothing, Pending::State(base)].contains(&pending), "one at a time: {pending:?}");
        if base < committed {
            return Err(ResetError::Committed { base, committed });
        }
        check_whole(snapshots, base).map_err(|what| ResetError::NoCover { base, what })?;
        appender.reset(flusher, base, &mut self.intent_store(snapshots, Pending::Reset))?;
        assert_eq!((self.pending(), appender.base()), (Pending::Nothing, base), "Z1");
        Ok(())
    }

    /// Stores an intent and, behind it, removes the snapshots that hold more: a crash in between is finished by the next start (B4).
    fn intent_store<'a>(
        &'a mut self,
        snapshots: &'a SnapshotStore,
        pending: fn(Zxid) -> Pending,
    ) -> impl FnMut(Option<Zxid>) -> io::Result<()> + 'a {
        move |intent| {
            self.store_pending(intent.map_or(Pending::Nothing, pending)).map_err(io::Error::other)?;
            self.pending().remove_snapshots(snapshots).map(drop).map_err(io::Error::other)
        }
    }

    /// What is to be finished.
    pub(super) fn pending(&self) -> Pending {
        let Superblock { truncate_pending, reset_pending, state_announced, .. } = *self.superblock();
        let truncate = truncate_pending.map(Pending::Truncate);
        // At most one is there: the superblock holds no more.
        let pending = truncate.or(reset_pending.map(Pending::Reset)).or(state_announced.map(Pending::State));
        pending.unwrap_or(Pending::Nothing)
    }

    /// The clean-stop place goes in the same write: it may lie behind the cut.
    fn store_pending(&mut self, pending: Pending) -> Result<(), SuperblockError> {
        self.change(|value| pending.put(value))
    }

    fn change(&mut self, change: impl FnOnce(&mut Superblock)) -> Result<(), SuperblockError> {
        let mut value = self.superblock().clone();
        change(&mut value);
        self.superblock.store(value)
    }
}

/// A change of the history that was begun and not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Nothing,
    /// Cut behind this.
    Truncate(Zxid),
    /// Replaced by the state at this.
    Reset(Zxid),
    /// That state is being published; nothing else has changed yet.
    State(Zxid),
}

impl Pending {
    fn put(self, value: &mut Superblock) {
        value.truncate_pending = if let Pending::Truncate(to) = self { Some(to) } else { None };
        value.reset_pending = if let Pending::Reset(base) = self { Some(base) } else { None };
        value.state_announced = if let Pending::State(base) = self { Some(base) } else { None };
        value.clean_stop = None;
    }

    /// B4, B7: what the log is about to lose, no snapshot may bring back; and none may stand for a log that was not replaced. Returns
    /// what was removed.
    pub(super) fn remove_snapshots(self, snapshots: &SnapshotStore) -> Result<Vec<Zxid>, SnapshotError> {
        match self {
            Pending::Nothing => Ok(Vec::new()),
            Pending::Truncate(to) => snapshots.remove_above(to),
            Pending::Reset(base) => snapshots.remove_above_base(base),
            // Published or not: the log was not replaced yet, and goes on without it.
            Pending::State(at) => {
                let there: Vec<Zxid> = snapshots.zxids()?.into_iter().filter(|&z| z == at).collect();
                snapshots.remove(&there)?;
                Ok(there)
            }
        }
    }

    /// The last transaction that stays: no snapshot may hold a later one.
    pub(super) fn target(self) -> Option<Zxid> {
        match self {
            Pending::Nothing | Pending::State(_) => None,
            Pending::Truncate(zxid) | Pending::Reset(zxid) => Some(zxid),
        }
    }
}

/// Reads the snapshot at `base` back: it must be whole, and hold nothing later. Otherwise, what is wrong.
fn check_whole(snapshots: &SnapshotStore, base: Zxid) -> Result<(), String> {
    let report = snapshots.verify(base).map_err(|e| e.to_string())?;
    match (&report.info, report.damages.first()) {
        _ if is_exactly(&report, base) => Ok(()),
        (_, Some(damage)) => Err(damage.to_string()),
        (Some(info), None) => Err(format!("it may hold transactions up to {}", info.zxid_end)),
        (None, None) => Err("it does not say what it holds".into()),
    }
}

/// True for a whole snapshot of the state at `base`, with nothing later in it.
fn is_exactly(report: &VerifyReport, base: Zxid) -> bool {
    report.is_good() && report.info.as_ref().is_some_and(|info| (info.zxid, info.zxid_end) == (base, base))
}

/// True when a start after the cut would find a beginning: an empty tree and a whole log, or a snapshot the log reaches.
fn is_covered(snapshots: &SnapshotStore, log_base: Zxid, to: Zxid) -> Result<bool, SnapshotError> {
    let stays = |entry: &crate::storage::snapshot::SnapshotEntry| {
        entry.state.as_ref().is_ok_and(|info| info.zxid >= log_base && info.zxid_end <= to)
    };
    Ok(log_base == Zxid::ZERO || snapshots.list()?.iter().any(stays))
}

/// True when there is a snapshot or a log file: data that a superblock must belong to (rule R8).
fn holds_data(vfs: &dyn Vfs, places: &NodePlaces) -> Result<bool, RecoverError> {
    let is_data = |dir: &Path, prefix: &str| match vfs.list(dir) {
        Ok(names) => {
            Ok(names.iter().any(|name| name.starts_with(prefix) && !name.starts_with(DAMAGED_PREFIX)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(RecoverError::Directory { path: dir.to_path_buf(), source }),
    };
    Ok(is_data(&places.data, "snapshot.")? || is_data(&places.log, "")?)
}
