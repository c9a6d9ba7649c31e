//! The README's examples print what the README says.

use std::path::Path;

use super::run_in;

#[test]
fn the_examples_of_the_readme_print_what_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let mut blocks = readme.split("```").skip(1).step_by(2);
    let mut examples = 0;
    while let Some(block) = blocks.next() {
        let Some(command) = block.strip_prefix("sh\ninference-picker-config ") else {
            continue;
        };
        let arguments: Vec<_> = command.split_whitespace().filter(|word| *word != "\\").collect();
        let printed = blocks.next().unwrap().split_once('\n').unwrap().1;
        let run = run_in(folder, &arguments, "");
        assert_eq!(run.printed.trim_end(), printed.trim_end(), "{command}{}", run.messages);
        examples += 1;
    }
    assert!(examples >= 2, "the README has {examples} examples");
}

#[test]
fn the_readme_names_every_option() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    let help = run_in(folder, &["istio", "--help"], "").printed;
    let options: Vec<_> =
        help.split_whitespace().filter(|word| word.starts_with("--") && *word != "--help").collect();
    assert!(options.len() >= 10, "{options:?}");
    for option in options {
        assert!(readme.contains(&format!("`{option}")), "{option}");
    }
}
