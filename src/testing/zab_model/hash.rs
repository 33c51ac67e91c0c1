//! 128 bits of a state. Two states that differ are taken for one with a probability of about n² / 2^129 among n.

use std::hash::Hasher;

/// Two lanes that mix each word differently: a multiplication whose halves are folded into one.
#[derive(Clone, Debug)]
pub(super) struct Wide {
    a: u64,
    b: u64,
}

fn fold(x: u64, by: u64) -> u64 {
    let product = u128::from(x) * u128::from(by);
    (product >> 64) as u64 ^ product as u64
}

impl Wide {
    pub(super) const fn new() -> Wide {
        Wide { a: 0x243f_6a88_85a3_08d3, b: 0x1319_8a2e_0370_7344 }
    }

    pub(super) fn sum(&self) -> u128 {
        u128::from(fold(self.a, 0x9e37_79b9_7f4a_7c15)) << 64
            | u128::from(fold(self.b, 0xd1b5_4a32_d192_ed03))
    }
}

impl Hasher for Wide {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.a = fold(self.a ^ word, 0xa076_1d64_78bd_642f).wrapping_add(self.b);
        self.b = fold(self.b.rotate_left(23) ^ word, 0xe703_7ed1_a0b4_28db).wrapping_add(word);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.sum() as u64
    }
}
