#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postroom::providers::fuzz::parse("360dialog", data));
