//! The compiler as a program of its own, for the runtime's tests. The product re-executes itself instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    stockade_runtime::compile::child_main(std::env::args().skip(1))
}
