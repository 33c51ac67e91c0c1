//! One file of the simulated disk: what the process sees (live), what survives a power cut (durable), and what lies between.
//!
//! - I1: `live` and `durable` differ only in sectors listed in `unsynced` and in size.
//! - I2: a sector is listed with every unsynced version it went through (up to [`VERSIONS_MAX`]), oldest first; the newest is
//!   in `live`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use super::choose::Choose;
use crate::storage::vfs::SECTOR_BYTES;

/// Bytes of a page: what the kernel allocates, caches and copies on write here.
pub(super) const PAGE_BYTES: usize = 4_096;
const SECTORS_PER_PAGE: usize = PAGE_BYTES / SECTOR_BYTES;
/// Superseded versions kept per sector (and of the size): more only repeats the same kind of state.
const VERSIONS_MAX: usize = 3;

/// Shared by all pages of zeros: preallocated files cost next to nothing.
static ZEROS: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES]));

type Sector = [u8; SECTOR_BYTES];
type Page = [u8; PAGE_BYTES];

/// Content of a file; cheap to clone, pages are shared until written. `None` is a hole: zeros without a block.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) size: u64,
    pages: Arc<Vec<Option<Arc<Page>>>>,
}

impl Image {
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let len = (PAGE_BYTES - within).min(buf.len() - done);
            let out = &mut buf[done..done + len];
            match self.pages.get(page) {
                Some(Some(bytes)) => out.copy_from_slice(&bytes[within..within + len]),
                _ => out.fill(0),
            }
            done += len;
        }
    }

    fn sector(&self, sector: u32) -> Sector {
        let mut out = [0; SECTOR_BYTES];
        self.read(&mut out, u64::from(sector) * SECTOR_BYTES as u64);
        out
    }

    /// Writes without touching the size; allocates pages.
    fn write(&mut self, buf: &[u8], offset: u64) {
        let pages = Arc::make_mut(&mut self.pages);
        let end = offset as usize + buf.len();
        if pages.len() < end.div_ceil(PAGE_BYTES) {
            pages.resize(end.div_ceil(PAGE_BYTES), None);
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset as usize + done;
            let (page, within) = (at / PAGE_BYTES, at % PAGE_BYTES);
            let len = (PAGE_BYTES - within).min(buf.len() - done);
            let new = &buf[done..done + len];
            let bytes = pages[page].get_or_insert_with(|| Arc::clone(&ZEROS));
            if bytes[within..within + len] != *new {
                Arc::make_mut(bytes)[within..within + len].copy_from_slice(new);
            }
            done += len;
        }
    }

    fn set_sector(&mut self, sector: u32, bytes: &Sector) {
        self.write(bytes, u64::from(sector) * SECTOR_BYTES as u64);
    }

    /// Cuts or grows; what is cut reads as zeros when the file grows again.
    fn resize(&mut self, size: u64) {
        if size < self.size {
            let pages = Arc::make_mut(&mut self.pages);
            pages.truncate((size as usize).div_ceil(PAGE_BYTES));
            let within = size as usize % PAGE_BYTES;
            if let Some(Some(last)) = pages.get_mut(size as usize / PAGE_BYTES) {
                Arc::make_mut(last)[within..].fill(0);
            }
        }
        self.size = size;
    }

    fn allocated(&self) -> usize {
        self.pages.iter().flatten().count()
    }

    fn is_hole(&self, page: usize) -> bool {
        !matches!(self.pages.get(page), Some(Some(_)))
    }
}

/// Why a sector's live bytes may differ from its durable ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Waits for a sync.
    Dirty,
    /// A sync failed: it may have reached the disk, but no later sync writes it.
    Failed,
    /// The device said it wrote it and did not.
    Lost,
}

#[derive(Clone, Debug)]
struct Unsynced {
    fate: Fate,
    superseded: Vec<Sector>,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) live: Image,
    durable: Image,
    unsynced: BTreeMap<u32, Unsynced>,
    sizes_superseded: Vec<u64>,
    bad_sectors: BTreeSet<u32>,
    /// Open handles.
    pub(super) open: u32,
    /// Has a live name.
    pub(super) linked: bool,
}

impl Inode {
    /// An empty file that has a name.
    pub(super) fn new_linked() -> Inode {
        Inode { linked: true, ..Inode::default() }
    }

    /// Writes `buf`; a `lost` write is acknowledged but never reaches the disk.
    pub(super) fn write(&mut self, buf: &[u8], offset: u64, lost: bool) {
        if buf.is_empty() {
            return;
        }
        let end = offset + buf.len() as u64;
        let before: Vec<Sector> = sectors(offset, end).map(|s| self.live.sector(s)).collect();
        self.live.write(buf, offset);
        if end > self.live.size {
            self.supersede_size(end);
            self.live.size = end;
        }
        for (sector, old) in sectors(offset, end).zip(&before) {
            self.bad_sectors.remove(&sector);
            self.note_change(sector, old, if lost { Fate::Lost } else { Fate::Dirty });
        }
    }

    pub(super) fn resize(&mut self, size: u64) {
        if size == self.live.size {
            return;
        }
        let cut: Vec<u32> = sectors(size, self.live.size.max(size))
            .filter(|&s| !self.live.is_hole(s as usize / SECTORS_PER_PAGE))
            .collect();
        let before: Vec<Sector> = cut.iter().map(|&s| self.live.sector(s)).collect();
        self.supersede_size(size);
        self.live.resize(size);
        for (&sector, old) in cut.iter().zip(&before) {
            self.note_change(sector, old, Fate::Dirty);
        }
    }

    /// Gives every hole below `size` a block of zeros.
    pub(super) fn allocate(&mut self, size: u64) {
        for page in 0..(size as usize).div_ceil(PAGE_BYTES) {
            if self.live.is_hole(page) {
                self.live.write(&[0; PAGE_BYTES], (page * PAGE_BYTES) as u64);
            }
        }
        if size > self.live.size {
            self.supersede_size(size);
            self.live.size = size;
        }
    }

    pub(super) fn sync(&mut self) {
        if self.unsynced.values().all(|u| u.fate == Fate::Dirty) {
            self.durable = self.live.clone();
            self.unsynced.clear();
        } else {
            self.sync_what_is_dirty();
        }
        self.sizes_superseded.clear();
    }

    fn sync_what_is_dirty(&mut self) {
        self.durable.resize(self.live.size);
        for (&sector, _) in self.unsynced.iter().filter(|(_, u)| u.fate == Fate::Dirty) {
            self.durable.set_sector(sector, &self.live.sector(sector));
        }
        self.unsynced.retain(|_, u| u.fate != Fate::Dirty);
    }

    /// A sync returned EIO: its pages count as clean from now on, whether or not they reached the disk.
    pub(super) fn sync_failed(&mut self) {
        for unsynced in self.unsynced.values_mut().filter(|u| u.fate == Fate::Dirty) {
            unsynced.fate = Fate::Failed;
        }
    }

    pub(super) fn drop_cache(&mut self) {
        let clean: Vec<u32> =
            self.unsynced.iter().filter(|(_, u)| u.fate != Fate::Dirty).map(|(&s, _)| s).collect();
        for sector in clean {
            self.live.set_sector(sector, &self.durable.sector(sector));
            self.unsynced.remove(&sector);
        }
    }

    /// Bit rot: the bit differs from now on, whoever looks.
    pub(super) fn flip_bit(&mut self, bit: u64) {
        for image in [&mut self.live, &mut self.durable] {
            if bit / 8 < image.size {
                let mut byte = [0];
                image.read(&mut byte, bit / 8);
                image.write(&[byte[0] ^ (1 << (bit % 8))], bit / 8);
            }
        }
    }

    pub(super) fn set_bad_sector(&mut self, offset: u64) {
        self.bad_sectors.insert((offset / SECTOR_BYTES as u64) as u32);
    }

    pub(super) fn is_bad(&self, offset: u64, end: u64) -> bool {
        !self.bad_sectors.is_empty() && sectors(offset, end).any(|s| self.bad_sectors.contains(&s))
    }

    /// The file after a power cut, by `chooser`.
    pub(super) fn after_crash(&self, chooser: &mut dyn Choose) -> Inode {
        let mut image = self.durable.clone();
        image.resize(self.choose_size(chooser));
        for (&sector, unsynced) in &self.unsynced {
            let within = u64::from(sector) * (SECTOR_BYTES as u64) < image.size;
            if within && unsynced.fate != Fate::Lost {
                self.choose_sector(&mut image, sector, unsynced, chooser);
            }
        }
        // A sector may hold bytes of a longer version of the file than the size that survived.
        let size = image.size;
        image.size = u64::MAX;
        image.resize(size);
        Inode {
            live: image.clone(),
            durable: image,
            bad_sectors: self.bad_sectors.clone(),
            linked: true,
            ..Inode::default()
        }
    }

    pub(super) fn allocated(&self) -> u64 {
        self.live.allocated() as u64
    }

    /// Pages that a write of this range must allocate, in order.
    pub(super) fn holes(&self, offset: u64, end: u64) -> impl Iterator<Item = u64> {
        let page = PAGE_BYTES as u64;
        (offset / page..end.div_ceil(page)).filter(|&p| self.live.is_hole(p as usize))
    }

    pub(super) fn unsynced_sectors(&self) -> usize {
        self.unsynced.len()
    }

    /// Upper bound of the number of contents that a power cut can leave.
    pub(super) fn image_count_max(&self) -> u64 {
        let sectors = self.unsynced.values().filter(|u| u.fate != Fate::Lost);
        let choices = sectors.map(|u| u.superseded.len() as u64 + 2);
        choices.fold(self.size_options().len() as u64, u64::saturating_mul)
    }

    fn size_options(&self) -> Vec<u64> {
        let mut options = vec![self.durable.size];
        options.extend(self.sizes_superseded.iter().copied().chain([self.live.size]));
        options.dedup();
        options
    }

    fn choose_size(&self, chooser: &mut dyn Choose) -> u64 {
        let options = self.size_options();
        options[chooser.choose(options.len())]
    }

    fn choose_sector(&self, image: &mut Image, sector: u32, of: &Unsynced, chooser: &mut dyn Choose) {
        let options = of.superseded.len() + 2;
        match chooser.choose(options) {
            0 => {}
            n if n + 1 == options => image.set_sector(sector, &self.live.sector(sector)),
            n => image.set_sector(sector, &of.superseded[n - 1]),
        }
    }

    fn note_change(&mut self, sector: u32, old: &Sector, fate: Fate) {
        let unchanged = *old == self.live.sector(sector);
        let Some(entry) = self.unsynced.get_mut(&sector) else {
            if !unchanged {
                self.unsynced.insert(sector, Unsynced { fate, superseded: Vec::new() });
            }
            return;
        };
        if !unchanged && entry.fate != Fate::Lost && entry.superseded.len() < VERSIONS_MAX {
            entry.superseded.push(*old);
        }
        entry.fate = fate;
    }

    fn supersede_size(&mut self, new: u64) {
        let old = self.live.size;
        if old != new && old != self.durable.size && self.sizes_superseded.len() < VERSIONS_MAX {
            self.sizes_superseded.push(old);
        }
    }
}

fn sectors(offset: u64, end: u64) -> std::ops::Range<u32> {
    let sector = SECTOR_BYTES as u64;
    (offset / sector) as u32..end.div_ceil(sector) as u32
}
