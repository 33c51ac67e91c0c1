//! Little-endian fields at fixed offsets of what is on the disk: the superblock, the log's and the snapshots' fixed parts.
//!
//! Offsets are constants of a format and the bytes have its fixed length: one that does not fit is a mistake here, not damage.

/// Puts `bytes` at `at`.
pub(super) fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Puts a number of 32 bits at `at`.
pub(super) fn put_u32(out: &mut [u8], at: usize, v: u32) {
    put(out, at, &v.to_le_bytes());
}

/// Puts a number of 64 bits at `at`.
pub(super) fn put_u64(out: &mut [u8], at: usize, v: u64) {
    put(out, at, &v.to_le_bytes());
}

/// The number of 16 bits at `at`.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("a slice of two bytes"))
}

/// The number of 32 bits at `at`.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("a slice of four bytes"))
}

/// The number of 64 bits at `at`.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_touch_nothing_else() {
        let mut out = [0xEE; 16];
        put_u32(&mut out, 1, 0x0403_0201);
        put_u64(&mut out, 5, 0x0C0B_0A09_0807_0605);
        put(&mut out, 13, &[13, 14]);
        assert_eq!(out, [0xEE, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xEE]);
        assert_eq!(
            (u16_at(&out, 1), u32_at(&out, 1), u64_at(&out, 5)),
            (0x0201, 0x0403_0201, 0x0C0B_0A09_0807_0605)
        );
    }
}
