#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| postroom::providers::fuzz::verify("whatsapp", data));
