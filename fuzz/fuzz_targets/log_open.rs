#![no_main]
//! Recovery of a log directory made of arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::log_open(data));
