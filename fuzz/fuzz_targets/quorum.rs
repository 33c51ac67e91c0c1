#![no_main]
//! Whatever a peer may send on the election or quorum port, from arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::quorum(data));
