//! Reads a body by the parser of any provider: the first byte selects the provider.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((scheme, rest)) = providers::fuzz::pick(data) {
        providers::fuzz::parse(scheme.kind, rest);
    }
});
