#![no_main]
//! Arbitrary bytes as the body of every request, prepared, applied and answered on a small tree.
libfuzzer_sys::fuzz_target!(|data: &[u8]| zabra::testing::fuzz::client_request(data));
