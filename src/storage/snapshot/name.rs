//! Names of snapshot files: `snapshot.` and the zxid in hexadecimal, with `.tmp` behind until it is published.

use std::path::{Path, PathBuf};

use crate::base::Zxid;

const PREFIX: &str = "snapshot.";
const TMP_SUFFIX: &str = ".tmp";
/// Hexadecimal digits of a zxid in a name, so that names sort as zxids do.
const NAME_DIGITS: usize = 16;

/// The file of the snapshot `zxid`.
pub(super) fn path(dir: &Path, zxid: Zxid) -> PathBuf {
    dir.join(format!("{PREFIX}{:0width$x}", zxid.0, width = NAME_DIGITS))
}

/// Its file until it is published.
pub(super) fn tmp_path(dir: &Path, zxid: Zxid) -> PathBuf {
    let mut name = path(dir, zxid).into_os_string();
    name.push(TMP_SUFFIX);
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
    name.strip_suffix(TMP_SUFFIX).and_then(zxid_of).is_some()
}
