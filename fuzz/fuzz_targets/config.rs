#![no_main]
//! A configuration file made of arbitrary bytes.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::config(data));
