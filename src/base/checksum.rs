//! CRC-32 (IEEE, as in zip and as ZooKeeper's digest uses it), whole, continued, and seeded.

/// CRC-32 of `bytes`.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32 of what `crc` was the CRC-32 of, followed by `bytes`: `crc32_continue(crc32(a), b) == crc32(a ++ b)`.
#[must_use]
pub fn crc32_continue(crc: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(crc);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn continuing_equals_concatenating() {
        assert_eq!(crc32_continue(crc32(b"1234"), b"56789"), crc32(b"123456789"));
        assert_eq!(crc32_continue(0, b"123456789"), crc32(b"123456789"));
    }
}
