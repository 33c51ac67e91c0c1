#![no_main]
//! Every record that comes from a client, a peer or the log, decoded from arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::jute(data));
