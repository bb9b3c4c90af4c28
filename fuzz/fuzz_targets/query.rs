#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postroom::http::params::fuzz_page_request(data));
