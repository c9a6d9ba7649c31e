//! Claims about the command, as a user runs it: arguments and files in, text and an exit code out.

mod messages;
mod migrating;
mod printed;
mod readme;
mod templates;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a run of the command gave.
struct Run {
    succeeded: bool,
    printed: String,
    messages: String,
}

/// Runs it in the fixtures' folder.
fn run(arguments: &str) -> Run {
    run_with_input(&arguments.split_whitespace().collect::<Vec<_>>(), "")
}

/// Runs it with a text on standard input.
fn run_with_input(arguments: &[&str], input: &str) -> Run {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").as_path(), arguments, input)
}

fn run_in(folder: &Path, arguments: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_inference-picker-config"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early does not read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    Run {
        succeeded: status.success(),
        printed: String::from_utf8(stdout).unwrap(),
        messages: String::from_utf8(stderr).unwrap(),
    }
}
