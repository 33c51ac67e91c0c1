//! The simulated disk as a [`Vfs`]: every method locks the one state, counts the operation, and acts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::inode::{Inode, PAGE_BYTES};
use super::{Fault, OpKind, SimDisk, State};
use crate::storage::vfs::{OpenMode, Vfs, VfsFile, VfsLock};

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: u64,
    writable: bool,
}

#[derive(Debug)]
struct SimLock {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl VfsLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.state.lock().locks.remove(&self.path);
    }
}

impl Vfs for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        let missing: Vec<&Path> = dir.ancestors().take_while(|d| state.names.lookup(d).is_err()).collect();
        for dir in missing.into_iter().rev() {
            state.begin_whole(OpKind::CreateDir)?;
            state.names.make_dir(dir)?;
        }
        state.check_alive()?;
        state.names.list(dir).map(drop)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        state.check_alive()?;
        state.names.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.lock_state();
        state.check_alive()?;
        let inode = match mode {
            OpenMode::CreateNew => state.create(path)?,
            OpenMode::Read | OpenMode::ReadWrite => state.names.file(path)?,
        };
        state.inode(inode).open += 1;
        Ok(Arc::new(SimFile { state: Arc::clone(&self.state), inode, writable: mode != OpenMode::Read }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.lock_state();
        state.check_alive()?;
        Ok(state.names.lookup(path).is_ok())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.begin_whole(OpKind::Rename)?;
        if let Some(replaced) = state.names.rename(from, to)? {
            state.inode(replaced).linked = false;
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.begin_whole(OpKind::Remove)?;
        let inode = state.names.unlink(path)?;
        state.inode(inode).linked = false;
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.begin_whole(OpKind::SyncDir)?;
        state.names.sync(dir)?;
        state.collect();
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.lock_state();
        state.check_alive()?;
        Ok(state.free_pages() * PAGE_BYTES as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn VfsLock>> {
        let mut state = self.lock_state();
        state.check_alive()?;
        if state.names.lookup(path).is_err() {
            state.create(path)?;
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { state: Arc::clone(&self.state), path: path.to_owned() }))
    }
}

impl State {
    fn create(&mut self, path: &Path) -> io::Result<u64> {
        if self.names.lookup(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.begin_whole(OpKind::Create)?;
        let number = self.next_inode;
        self.names.link(path, number)?;
        self.next_inode += 1;
        self.inodes.insert(number, Inode::new_linked());
        Ok(number)
    }
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(rustix::io::Errno::BADF.into()) }
    }
}

impl VfsFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        state.check_alive()?;
        Ok(state.inode(self.inode).live.size)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin_whole(OpKind::Read)?;
        let inode = state.inode(self.inode);
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= inode.live.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        if inode.is_bad(offset, end) {
            return Err(Fault::Eio.error());
        }
        inode.live.read(buf, offset);
        Ok(())
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        let fault = state.begin(OpKind::Write)?;
        let fits = state.bytes_that_fit(self.inode, offset, buf.len());
        match fault {
            Some(fault @ (Fault::Eio | Fault::Enospc)) => {
                let prefix = state.rng.below(fits as u64 + 1) as usize;
                state.inode(self.inode).write(&buf[..prefix], offset, false);
                Err(fault.error())
            }
            lost_or_none => {
                state.inode(self.inode).write(&buf[..fits], offset, lost_or_none.is_some());
                if fits < buf.len() { Err(Fault::Enospc.error()) } else { Ok(()) }
            }
        }
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        state.begin_whole(OpKind::SetSize)?;
        state.inode(self.inode).resize(size);
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state.lock();
        state.begin_whole(OpKind::Allocate)?;
        if state.bytes_that_fit(self.inode, 0, size as usize) < size as usize {
            return Err(Fault::Enospc.error());
        }
        state.inode(self.inode).allocate(size);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        match state.begin(OpKind::Sync)? {
            Some(fault) => {
                state.inode(self.inode).sync_failed();
                Err(fault.error())
            }
            None => {
                state.inode(self.inode).sync();
                Ok(())
            }
        }
    }

    fn drop_cache(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.check_alive()?;
        state.inode(self.inode).drop_cache();
        Ok(())
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // A handle that outlived a fork's collection has nothing left to count.
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.open = inode.open.saturating_sub(1);
        }
    }
}
