#![no_main]
//! A snapshot as a leader may send it, from arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::snap_stream(data));
