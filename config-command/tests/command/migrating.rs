//! What docs/migrating*.md have people do.

use std::path::{Path, PathBuf};

use super::run_in;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// What stands in each block of code of the page that begins with this line.
fn blocks<'a>(page: &'a str, fence: &str) -> Vec<&'a str> {
    page.split(fence).skip(1).map(|rest| rest.split_once("```").unwrap().0.trim()).collect()
}

/// The arguments of each of the page's commands.
fn commands(page: &str) -> Vec<Vec<&str>> {
    let commands = blocks(page, "```sh\n").into_iter();
    commands
        .map(|command| command.strip_prefix("inference-picker-config ").unwrap().split_whitespace().collect())
        .collect()
}

#[test]
fn the_check_and_the_settings_of_the_page_are_taken() {
    let page = page("migrating.md");
    let [arguments] = &commands(&page)[..] else { panic!("one command") };
    let settings = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(settings.path(), blocks(&page, "```json\n")[0]).unwrap();
    let with_settings = [&arguments[..], &["--settings", settings.path().to_str().unwrap()]].concat();
    for arguments in [arguments.clone(), with_settings] {
        let run = run_in(&root(), &arguments, "");
        assert!(run.printed.starts_with("pools: 1, models: "), "{}", run.messages);
    }
}

#[test]
fn resources_of_asm_and_ack_are_taken_as_the_page_says() {
    let page = page("migrating-from-asm.md");
    let [asm, ack, istio] = &commands(&page)[..] else { panic!("three commands") };
    for (check, expected) in [(asm, "pools: 1, models: 1"), (ack, "pools: 2, models: ")] {
        let run = run_in(&root(), check, "");
        assert!(
            run.succeeded && run.printed.starts_with(expected),
            "{check:?}: {}{}",
            run.printed,
            run.messages
        );
    }
    let run = run_in(&root(), istio, "");
    assert!(run.succeeded, "{}", run.messages);
    for kind in ["kind: EnvoyFilter", "kind: VirtualService"] {
        assert!(run.printed.contains(kind), "{kind}: {}", run.printed);
    }
}
