//! Prints the plugin's configuration, or the Istio resources that carry it: files in, text out.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use inference_picker_config::arguments::{Arguments, Command};
use inference_picker_config::command;
use inference_picker_config::findings::Findings;

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // There is nothing to be done where not even this can be said.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    let text = command::text(command, &mut findings)?;
    findings.write(io::stderr())?;
    if findings.has_errors() {
        return Ok(ExitCode::FAILURE);
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
