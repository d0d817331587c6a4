//! The target that the binary is named after, under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| stockade_fuzz::run(env!("CARGO_BIN_NAME"), bytes));
