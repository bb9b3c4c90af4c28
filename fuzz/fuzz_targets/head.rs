#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| server::http::head::fuzz_scan(data));
