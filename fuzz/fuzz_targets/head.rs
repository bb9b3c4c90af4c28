#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postroom::http::head::fuzz_scan(data));
