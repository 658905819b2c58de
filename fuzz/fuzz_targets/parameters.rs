#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sd_fuzz::parameters(bytes));
