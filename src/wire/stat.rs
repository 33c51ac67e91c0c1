//! The two stat records: what clients see, and what is kept.

use super::jute::{JuteError, PutJute, Reader};

/// A node's stat as clients see it: 68 bytes on the wire. `cversion`, `ephemeral_owner`, `data_length` and `num_children` are derived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// zxid of the transaction that created the node.
    pub czxid: i64,
    /// zxid of the last change of the data.
    pub mzxid: i64,
    /// Wall time of creation, ms since 1970.
    pub ctime: i64,
    /// Wall time of the last change of the data, ms since 1970.
    pub mtime: i64,
    /// Number of changes of the data.
    pub version: i32,
    /// Number of creations and deletions of children: 2 × stored − children.
    pub cversion: i32,
    /// Number of changes of the ACL.
    pub aversion: i32,
    /// Session of an ephemeral node, otherwise 0 (container and TTL nodes too).
    pub ephemeral_owner: i64,
    /// Bytes of data; 0 for null.
    pub data_length: i32,
    /// Number of children now.
    pub num_children: i32,
    /// zxid of the last creation or deletion of a child.
    pub pzxid: i64,
}

/// A node's stat as it is kept: 60 bytes on the wire, in snapshots and in the digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatPersisted {
    /// zxid of the transaction that created the node.
    pub czxid: i64,
    /// zxid of the last change of the data.
    pub mzxid: i64,
    /// Wall time of creation, ms since 1970.
    pub ctime: i64,
    /// Wall time of the last change of the data, ms since 1970.
    pub mtime: i64,
    /// Number of changes of the data.
    pub version: i32,
    /// Number of creations of children (not deletions): the next sequence number.
    pub cversion: i32,
    /// Number of changes of the ACL.
    pub aversion: i32,
    /// Session, or the marker of a container (`i64::MIN`) or a TTL node (top byte 0xff, low 40 bits ms).
    pub ephemeral_owner: i64,
    /// zxid of the last creation or deletion of a child.
    pub pzxid: i64,
}

impl Stat {
    /// Bytes on the wire.
    pub const BYTES: usize = 68;

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_long(self.czxid);
        out.put_long(self.mzxid);
        out.put_long(self.ctime);
        out.put_long(self.mtime);
        out.put_int(self.version);
        out.put_int(self.cversion);
        out.put_int(self.aversion);
        out.put_long(self.ephemeral_owner);
        out.put_int(self.data_length);
        out.put_int(self.num_children);
        out.put_long(self.pzxid);
    }

    /// Reads the record.
    pub fn read(r: &mut Reader<'_>) -> Result<Stat, JuteError> {
        Ok(Stat {
            czxid: r.long()?,
            mzxid: r.long()?,
            ctime: r.long()?,
            mtime: r.long()?,
            version: r.int()?,
            cversion: r.int()?,
            aversion: r.int()?,
            ephemeral_owner: r.long()?,
            data_length: r.int()?,
            num_children: r.int()?,
            pzxid: r.long()?,
        })
    }
}

impl StatPersisted {
    /// Bytes on the wire.
    pub const BYTES: usize = 60;

    /// Appends the record.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_long(self.czxid);
        out.put_long(self.mzxid);
        out.put_long(self.ctime);
        out.put_long(self.mtime);
        out.put_int(self.version);
        out.put_int(self.cversion);
        out.put_int(self.aversion);
        out.put_long(self.ephemeral_owner);
        out.put_long(self.pzxid);
    }

    /// Reads the record.
    pub fn read(r: &mut Reader<'_>) -> Result<StatPersisted, JuteError> {
        Ok(StatPersisted {
            czxid: r.long()?,
            mzxid: r.long()?,
            ctime: r.long()?,
            mtime: r.long()?,
            version: r.int()?,
            cversion: r.int()?,
            aversion: r.int()?,
            ephemeral_owner: r.long()?,
            pzxid: r.long()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_fields() {
        let stat = Stat {
            czxid: 1,
            mzxid: 2,
            ctime: 3,
            mtime: 4,
            version: 5,
            cversion: 6,
            pzxid: 7,
            ..Stat::default()
        };
        let mut out = Vec::new();
        stat.put(&mut out);
        assert_eq!(out.len(), Stat::BYTES);
        assert_eq!(Stat::read(&mut Reader::new(&out)), Ok(stat));
        let kept = StatPersisted {
            czxid: 1,
            aversion: 2,
            ephemeral_owner: -3,
            pzxid: 4,
            ..StatPersisted::default()
        };
        out.clear();
        kept.put(&mut out);
        assert_eq!(out.len(), StatPersisted::BYTES);
        assert_eq!(StatPersisted::read(&mut Reader::new(&out)), Ok(kept));
    }
}
