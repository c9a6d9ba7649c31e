//! What docs/migrating.md has people do.

use std::path::Path;

use super::run_in;

/// What stands between this line and the end of the block of code that it begins.
fn block<'a>(page: &'a str, fence: &str) -> &'a str {
    page.split_once(fence).unwrap().1.split_once("```").unwrap().0
}

#[test]
fn the_check_and_the_settings_of_the_page_are_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = std::fs::read_to_string(root.join("docs/migrating.md")).unwrap();
    let command = block(&page, "```sh\n").trim();
    let arguments: Vec<&str> =
        command.strip_prefix("inference-picker-config ").unwrap().split_whitespace().collect();
    let settings = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(settings.path(), block(&page, "```json\n")).unwrap();
    let with_settings = [&arguments[..], &["--settings", settings.path().to_str().unwrap()]].concat();
    for arguments in [arguments, with_settings] {
        let run = run_in(&root, &arguments, "");
        assert!(run.printed.starts_with("pools: 1, models: "), "{}", run.messages);
    }
}
