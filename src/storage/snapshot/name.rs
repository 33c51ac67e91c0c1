//! Names of snapshot files: `snapshot.` and the zxid in hexadecimal, with `.tmp` behind until it is published; `.received.tmp` for one that is not
//! made from the tree there is, and may have the same zxid.

use std::path::{Path, PathBuf};

use crate::base::Zxid;

const PREFIX: &str = "snapshot.";
const TMP_SUFFIX: &str = ".tmp";
const RECEIVED_TMP_SUFFIX: &str = ".received.tmp";
/// Hexadecimal digits of a zxid in a name, so that names sort as zxids do.
const NAME_DIGITS: usize = 16;

/// The file of the snapshot `zxid`.
pub(super) fn path(dir: &Path, zxid: Zxid) -> PathBuf {
    dir.join(format!("{PREFIX}{:0width$x}", zxid.0, width = NAME_DIGITS))
}

/// Its file until it is published.
pub(super) fn tmp_path(dir: &Path, zxid: Zxid) -> PathBuf {
    with_suffix(dir, zxid, TMP_SUFFIX)
}

/// The same for a state that comes from elsewhere.
pub(super) fn received_tmp_path(dir: &Path, zxid: Zxid) -> PathBuf {
    with_suffix(dir, zxid, RECEIVED_TMP_SUFFIX)
}

fn with_suffix(dir: &Path, zxid: Zxid, suffix: &str) -> PathBuf {
    let mut name = path(dir, zxid).into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// The zxid of a published snapshot's name; `None` for any other name, also for other spellings of the number.
#[must_use]
pub fn zxid_of(name: &str) -> Option<Zxid> {
    let digits = name.strip_prefix(PREFIX)?;
    let zxid = Zxid(u64::from_str_radix(digits, 16).ok()?);
    (format!("{:0width$x}", zxid.0, width = NAME_DIGITS) == digits).then_some(zxid)
}

/// The name of a snapshot that is not published?
pub(super) fn is_tmp(name: &str) -> bool {
    let of = |suffix| name.strip_suffix(suffix).and_then(zxid_of);
    of(TMP_SUFFIX).or_else(|| of(RECEIVED_TMP_SUFFIX)).is_some()
}
