#![no_main]
//! A program of log operations and crashes, against a model.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::log_ops(data));
