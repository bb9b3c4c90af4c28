//! Verifies a request by the verifier of any provider: the first byte selects the provider.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((scheme, rest)) = providers::fuzz::pick(data) {
        providers::fuzz::verify(scheme.kind, rest);
    }
});
