//! What the parts of the log share: the ordered set of segments, the cursors, the latch.
//!
//! Invariants:
//! - H1: `appended >= durable`, both only grow (but for truncation, which owns both ends, and takes them back), each pair (place, zxid) is read whole.
//! - H2: after the first failed write or flush every call answers `Latched`; nothing is retried.
//! - H3: `live` is never empty, numbers are consecutive, and the last one is the one being appended to.
//! - H4: the ready spare has the number after the last live one. It is taken, and its number decided, under the lock of `live`.
//! - H5: locks are taken in the order `maintenance`, `live`, `ready`, `retired`, cursors.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::base::rng::Rng;
use crate::base::{LogPos, Zxid};
use crate::storage::log::format::{Chain, SegmentHead};
use crate::storage::log::segment::{self, Extent, Segment};
use crate::storage::log::{LogError, LogOptions};
use crate::storage::vfs::Vfs;

/// Retired files kept for recycling; more are removed.
pub(super) const RETIRED_FILES_MAX: usize = 2;

/// A place and the last zxid before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) pos: LogPos,
    pub(super) zxid: Zxid,
}

/// How far the log is (H1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursors {
    pub(super) appended: Cursor,
    pub(super) durable: Cursor,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) vfs: Arc<dyn Vfs>,
    pub(super) dir: PathBuf,
    pub(super) options: LogOptions,
    /// Held by whoever makes, retires or cuts segments; the source of salts.
    maintenance: Mutex<Rng>,
    live: RwLock<Vec<Arc<Segment>>>,
    ready: Mutex<Option<Arc<Segment>>>,
    retired: Mutex<Vec<PathBuf>>,
    cursors: Mutex<Cursors>,
    /// The durable zxid again, for readers that need nothing else.
    durable_zxid: AtomicU64,
    /// Grows with every truncation and reset: a reader from before it must start again.
    generation: AtomicU64,
    latched: RwLock<Option<Arc<str>>>,
}

impl Shared {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        options: LogOptions,
        salts: Rng,
        live: Vec<Arc<Segment>>,
        retired: Vec<PathBuf>,
        at: Cursor,
    ) -> Shared {
        assert!(live.windows(2).all(|w| w[0].head.number + 1 == w[1].head.number), "H3");
        assert_eq!(live.last().map(|s| s.head.number), Some(at.pos.segment), "H3");
        Shared {
            vfs,
            dir,
            options,
            maintenance: Mutex::new(salts),
            live: RwLock::new(live),
            ready: Mutex::new(None),
            retired: Mutex::new(retired),
            cursors: Mutex::new(Cursors { appended: at, durable: at }),
            durable_zxid: AtomicU64::new(at.zxid.0),
            generation: AtomicU64::new(0),
            latched: RwLock::new(None),
        }
    }

    // --- Cursors ---

    pub(super) fn cursors(&self) -> Cursors {
        *self.cursors.lock()
    }

    pub(super) fn durable_zxid(&self) -> Zxid {
        Zxid(self.durable_zxid.load(Ordering::Acquire))
    }

    /// Publishes that records were appended up to `to`. The lock releases the stores before it.
    pub(super) fn publish_appended(&self, to: Cursor) {
        let mut cursors = self.cursors.lock();
        assert!(to.pos > cursors.appended.pos, "H1: appending moves on");
        cursors.appended = to;
    }

    /// Publishes that everything up to `to` is durable.
    pub(super) fn publish_durable(&self, to: Cursor) {
        let mut cursors = self.cursors.lock();
        assert!(
            to.pos >= cursors.durable.pos && to.pos <= cursors.appended.pos,
            "H1: durable follows appended"
        );
        cursors.durable = to;
        self.durable_zxid.store(to.zxid.0, Ordering::Release);
    }

    /// Truncation's own: both ends move back to `to`, and readers learn it.
    pub(super) fn reset_cursors(&self, to: Cursor) {
        let mut cursors = self.cursors.lock();
        assert!(to.pos <= cursors.durable.pos, "truncation moves back");
        self.place_both(&mut cursors, to);
    }

    /// Both ends at `to`, and older readers learn it.
    fn place_both(&self, cursors: &mut Cursors, to: Cursor) {
        *cursors = Cursors { appended: to, durable: to };
        self.durable_zxid.store(to.zxid.0, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    // --- Latch ---

    pub(super) fn check(&self) -> Result<(), LogError> {
        match &*self.latched.read() {
            None => Ok(()),
            Some(cause) => Err(LogError::Latched { cause: Arc::clone(cause) }),
        }
    }

    /// Passes `result` on; the first failure on the durable path latches the log (H2).
    pub(super) fn or_latch<T>(&self, result: Result<T, LogError>) -> Result<T, LogError> {
        if let Err(e) = &result
            && !e.is_benign()
        {
            self.latched.write().get_or_insert_with(|| e.to_string().into());
        }
        result
    }

    // --- Segments ---

    pub(super) fn active(&self) -> Arc<Segment> {
        Arc::clone(self.live.read().last().expect("H3"))
    }

    /// The live segments numbered from `first`, oldest first.
    pub(super) fn live_from(&self, first: u64) -> Vec<Arc<Segment>> {
        self.live.read().iter().filter(|s| s.head.number >= first).cloned().collect()
    }

    /// The newest live segment that may hold a zxid of at least `zxid`'s first occurrence: the last whose records start before it.
    pub(super) fn segment_for(&self, zxid: Zxid) -> Option<Arc<Segment>> {
        let live = self.live.read();
        live.iter().rev().find(|s| s.extent().before.zxid < zxid).cloned()
    }

    /// The segment after `number`, if there is one.
    pub(super) fn segment_after(&self, number: u64) -> Option<Arc<Segment>> {
        self.live.read().iter().find(|s| s.head.number > number).cloned()
    }

    /// What the first record of the log follows.
    pub(super) fn base(&self) -> Chain {
        self.live.read().first().expect("H3").extent().before
    }

    pub(super) fn maintenance(&self) -> MutexGuard<'_, Rng> {
        self.maintenance.lock()
    }

    /// Makes the ready spare the active segment, behind `before`. Makes one in place when none is ready.
    pub(super) fn rotate(&self, before: Chain) -> Result<Arc<Segment>, LogError> {
        if let Some(next) = self.take_ready(before) {
            return Ok(next);
        }
        let mut salts = self.maintenance.lock();
        self.make_ready(&mut salts)?;
        Ok(self.take_ready(before).expect("made under the maintenance lock, which this thread holds"))
    }

    fn take_ready(&self, before: Chain) -> Option<Arc<Segment>> {
        let mut live = self.live.write();
        let next = self.ready.lock().take()?;
        let last = live.last().expect("H3");
        assert_eq!(next.head.number, last.head.number + 1, "H4");
        last.seal();
        next.change_extent(|e| *e = Extent::empty(before));
        live.push(Arc::clone(&next));
        Some(next)
    }

    /// Makes the spare unless it is there; true when it was made. `salts` proves that the caller holds `maintenance`.
    pub(super) fn make_ready(&self, salts: &mut Rng) -> Result<bool, LogError> {
        let number = {
            let live = self.live.read();
            if self.ready.lock().is_some() {
                return Ok(false);
            }
            live.last().expect("H3").head.number + 1
        };
        let head = SegmentHead {
            number,
            salt: salts.next_u64(),
            identity: self.options.identity,
            segment_bytes: self.options.segment_bytes,
            synced: self.cursors().durable.pos,
        };
        let recycled = self.retired.lock().pop();
        let file = segment::make_segment(&*self.vfs, &self.dir, head, recycled)?;
        let path = segment::segment_path(&self.dir, number);
        let spare = Segment::new(head, path, file, self.options.region, Extent::empty(Chain::default()))?;
        *self.ready.lock() = Some(Arc::new(spare));
        Ok(true)
    }

    /// Takes the oldest live segment out of the log for good, if `may_go` says so; false when it stays.
    pub(super) fn retire_oldest(&self, may_go: impl FnOnce(&Segment) -> bool) -> Result<bool, LogError> {
        let oldest = {
            let live = self.live.read();
            if live.len() < 2 || !may_go(&live[0]) {
                return Ok(false);
            }
            Arc::clone(&live[0])
        };
        let path = segment::retire(&*self.vfs, &self.dir, oldest.head.number)?;
        self.live.write().remove(0);
        self.recycle_or_remove(oldest, path)?;
        Ok(true)
    }

    /// The ready spare, for reset.
    pub(super) fn take_spare(&self) -> Option<Arc<Segment>> {
        self.ready.lock().take()
    }

    /// Reset's own: `first`, durable up to `end` where its records end, becomes the only segment. The others are retired, oldest
    /// first.
    pub(super) fn replace_segments(&self, first: Arc<Segment>, end: u64) -> Result<(), LogError> {
        let to = Cursor { pos: first.pos(end), zxid: first.extent().last };
        let old = {
            let mut live = self.live.write();
            assert_eq!(first.head.number, live.last().expect("H3").head.number + 1, "H4");
            let mut cursors = self.cursors.lock();
            assert!(to.pos > cursors.appended.pos, "places grow, also where the records begin anew");
            self.place_both(&mut cursors, to);
            std::mem::replace(&mut *live, vec![first])
        };
        for segment in old {
            let path = segment::retire(&*self.vfs, &self.dir, segment.head.number)?;
            self.recycle_or_remove(segment, path)?;
        }
        Ok(())
    }

    /// Takes the ready spare and every live segment above `number` out of the log, highest first.
    pub(super) fn retire_above(&self, number: u64) -> Result<(), LogError> {
        let spare = self.ready.lock().take();
        for segment in spare.into_iter().chain(self.live_from(number + 1).into_iter().rev()) {
            let path = segment::retire(&*self.vfs, &self.dir, segment.head.number)?;
            self.live.write().retain(|s| s.head.number != segment.head.number);
            self.recycle_or_remove(segment, path)?;
        }
        assert_eq!(self.active().head.number, number, "H3");
        Ok(())
    }

    /// A retired file is recycled only when nobody can read it any more; a reader keeps an unlinked one alive.
    fn recycle_or_remove(&self, segment: Arc<Segment>, path: PathBuf) -> Result<(), LogError> {
        let fits = segment.bytes() == self.options.segment_bytes;
        let unused = Arc::try_unwrap(segment).is_ok();
        let mut retired = self.retired.lock();
        if fits && unused && retired.len() < RETIRED_FILES_MAX {
            retired.push(path);
            return Ok(());
        }
        self.vfs.remove(&path).map_err(|e| LogError::io("remove segment", &path, e))
    }
}
