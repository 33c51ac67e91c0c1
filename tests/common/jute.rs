//! The jute encoding, written for the tests from the description of the format: big-endian integers, strings and
//! buffers behind an `i32` length (-1 is null), vectors behind an `i32` count.

/// Appends fields to a message body. Consuming builder: `Writer::new().string("/a").boolean(true).done()`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Writer {
        Writer::default()
    }

    pub(crate) fn int(mut self, value: i32) -> Writer {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn long(mut self, value: i64) -> Writer {
        self.bytes.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(crate) fn boolean(mut self, value: bool) -> Writer {
        self.bytes.push(u8::from(value));
        self
    }

    /// `None` is jute's null (-1), which is not the same as an empty buffer.
    pub(crate) fn buffer(self, value: Option<&[u8]>) -> Writer {
        match value {
            None => self.int(-1),
            Some(bytes) => self.int(bytes.len() as i32).raw(bytes),
        }
    }

    pub(crate) fn string(self, value: &str) -> Writer {
        self.buffer(Some(value.as_bytes()))
    }

    pub(crate) fn strings(self, values: &[String]) -> Writer {
        values.iter().fold(self.int(values.len() as i32), |out, value| out.string(value))
    }

    pub(crate) fn acls(self, acls: &[Acl]) -> Writer {
        acls.iter().fold(self.int(acls.len() as i32), |out, acl| {
            out.int(acl.perms).string(&acl.scheme).string(&acl.id)
        })
    }

    /// Bytes without any framing.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.bytes
    }
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl {
    pub(crate) perms: i32,
    pub(crate) scheme: String,
    pub(crate) id: String,
}

impl Acl {
    pub(crate) fn new(perms: i32, scheme: &str, id: &str) -> Acl {
        Acl { perms, scheme: scheme.into(), id: id.into() }
    }

    /// `world:anyone` with every permission.
    pub(crate) fn open() -> Vec<Acl> {
        vec![Acl::new(31, "world", "anyone")]
    }
}

/// The 68 bytes that describe a node to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    pub(crate) ctime: i64,
    pub(crate) mtime: i64,
    pub(crate) version: i32,
    pub(crate) cversion: i32,
    pub(crate) aversion: i32,
    pub(crate) ephemeral_owner: i64,
    pub(crate) data_length: i32,
    pub(crate) num_children: i32,
    pub(crate) pzxid: i64,
}

/// The message ended inside a field, or a length made no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// Takes fields from the front of a message.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Short)?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn int(&mut self) -> Result<i32, Short> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    pub(crate) fn long(&mut self) -> Result<i64, Short> {
        let bytes = self.take(8)?;
        Ok(i64::from_be_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, Short> {
        Ok(self.take(1)?[0] != 0)
    }

    pub(crate) fn buffer(&mut self) -> Result<Option<&'a [u8]>, Short> {
        match self.int()? {
            -1 => Ok(None),
            length => Ok(Some(self.take(usize::try_from(length).map_err(|_| Short)?)?)),
        }
    }

    pub(crate) fn string(&mut self) -> Result<String, Short> {
        Ok(self.buffer()?.map_or_else(|| "<null>".into(), |b| String::from_utf8_lossy(b).into_owned()))
    }

    pub(crate) fn strings(&mut self) -> Result<Vec<String>, Short> {
        (0..self.int()?).map(|_| self.string()).collect()
    }

    pub(crate) fn acls(&mut self) -> Result<Vec<Acl>, Short> {
        (0..self.int()?)
            .map(|_| Ok(Acl { perms: self.int()?, scheme: self.string()?, id: self.string()? }))
            .collect()
    }

    pub(crate) fn stat(&mut self) -> Result<Stat, Short> {
        Ok(Stat {
            czxid: self.long()?,
            mzxid: self.long()?,
            ctime: self.long()?,
            mtime: self.long()?,
            version: self.int()?,
            cversion: self.int()?,
            aversion: self.int()?,
            ephemeral_owner: self.long()?,
            data_length: self.int()?,
            num_children: self.int()?,
            pzxid: self.long()?,
        })
    }
}
