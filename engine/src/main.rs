//! The binary `mcp-gateway`: owns nothing; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    mcp_engine::cli::main()
}
