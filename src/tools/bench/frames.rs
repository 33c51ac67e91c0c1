//! Cuts a byte stream into frames, in place: the load generator and the floor server both read through it.
//!
//! - F1: a frame that arrives whole is handed out from the caller's read buffer; only the tail of a frame cut short is copied.
//! - F2: memory grows with the bytes that came, never with the length they announce; a length outside the limit ends the stream.
//! - F3: frames come out in order, each exactly once, wherever the reads were cut.

/// Largest frame the load generator takes: a listing of some million children is a few dozen MiB.
pub(super) const REPLY_BYTES_MAX: usize = 256 << 20;

/// A length that no frame may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame length {len} is outside 0..={max}")]
pub(super) struct FrameLength {
    /// The length found.
    pub(super) len: i32,
    /// The limit.
    pub(super) max: usize,
}

/// What is left of a frame whose end has not come yet.
#[derive(Debug)]
pub(super) struct FrameStream {
    tail: Vec<u8>,
    frame_bytes_max: usize,
}

impl FrameStream {
    /// A stream whose frames are at most `frame_bytes_max` bytes long.
    pub(super) fn new(frame_bytes_max: usize) -> FrameStream {
        FrameStream { tail: Vec::new(), frame_bytes_max }
    }

    /// Forgets what is left over: a new connection begins.
    pub(super) fn reset(&mut self) {
        self.tail.clear();
    }

    /// Takes the bytes of one read and hands every frame that is whole (without its length) to `on_frame`.
    pub(super) fn feed(&mut self, bytes: &[u8], mut on_frame: impl FnMut(&[u8])) -> Result<(), FrameLength> {
        if self.tail.is_empty() {
            let used = split(bytes, self.frame_bytes_max, &mut on_frame)?;
            self.tail.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        self.tail.extend_from_slice(bytes);
        let used = split(&self.tail, self.frame_bytes_max, &mut on_frame)?;
        self.tail.drain(..used);
        Ok(())
    }
}

/// Hands out the whole frames at the start of `bytes`; returns how many bytes they took.
fn split(bytes: &[u8], max: usize, on_frame: &mut impl FnMut(&[u8])) -> Result<usize, FrameLength> {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + 4) {
        let len = i32::from_be_bytes(head.try_into().expect("four bytes"));
        let size = usize::try_from(len).ok().filter(|size| *size <= max).ok_or(FrameLength { len, max })?;
        let Some(frame) = bytes.get(at + 4..at + 4 + size) else { break };
        on_frame(frame);
        at += 4 + size;
    }
    debug_assert!(at <= bytes.len());
    Ok(at)
}

/// The head of a reply: who it answers and how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReplyHead {
    /// Echo of the request's xid.
    pub(super) xid: i32,
    /// Error code, 0 for success.
    pub(super) err: i32,
}

impl ReplyHead {
    /// Bytes on the wire: xid, zxid, err.
    pub(super) const BYTES: usize = 16;

    /// Reads the head; `None` when the frame is too short to have one.
    pub(super) fn read(frame: &[u8]) -> Option<ReplyHead> {
        let int = |at: usize| Some(i32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
        Some(ReplyHead { xid: int(0)?, err: int(12)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Zxid;
    use crate::wire::{ErrorCode, Stat, reply};

    fn replies() -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        reply::put_stat(&mut out, 1, Zxid(1), &Stat::default());
        reply::put_empty(&mut out, 2, Zxid(2), ErrorCode::NoNode);
        reply::put_event(&mut out, 3, reply::EventType::NodeDeleted, "/a");
        reply::put_empty(&mut out, 3, Zxid(4), ErrorCode::Ok);
        (out, 4)
    }

    #[test]
    fn every_way_to_cut_the_stream_gives_the_same_frames() {
        let (bytes, count) = replies();
        let mut whole = Vec::new();
        FrameStream::new(1000).feed(&bytes, |f| whole.push(f.to_vec())).unwrap();
        assert_eq!(whole.len(), count);
        for step in 1..=bytes.len() {
            let mut stream = FrameStream::new(1000);
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                stream.feed(piece, |f| got.push(f.to_vec())).unwrap();
            }
            assert_eq!(got, whole, "cut every {step} bytes");
            assert!(stream.tail.is_empty());
        }
    }

    #[test]
    fn heads_carry_xid_and_error() {
        let (bytes, _) = replies();
        let mut heads = Vec::new();
        FrameStream::new(1000).feed(&bytes, |f| heads.extend(ReplyHead::read(f))).unwrap();
        let pairs: Vec<_> = heads.iter().map(|h| (h.xid, h.err)).collect();
        assert_eq!(pairs, [(1, 0), (2, -101), (-1, 0), (3, 0)]);
        assert_eq!(ReplyHead::read(&[0; 15]), None);
    }

    #[test]
    fn a_length_outside_the_limit_ends_the_stream() {
        let mut stream = FrameStream::new(10);
        assert_eq!(stream.feed(&[0, 0, 0, 11], |_| ()), Err(FrameLength { len: 11, max: 10 }));
        assert!(FrameStream::new(10).feed(&[255, 255, 255, 255], |_| ()).is_err());
        let mut frames = 0;
        FrameStream::new(10).feed(&[0, 0, 0, 0, 0, 0, 0, 10], |_| frames += 1).unwrap();
        assert_eq!(frames, 1);
    }
}
