#![no_main]
//! A snapshot file made of arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::snapshot_load(data));
