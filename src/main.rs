//! panorec: one binary, chosen by how it is started.

use std::process::ExitCode;

fn main() -> ExitCode {
    panorec::cli::main()
}
