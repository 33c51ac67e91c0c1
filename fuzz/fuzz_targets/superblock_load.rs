#![no_main]
//! Superblock copies made of arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::superblock_load(data));
