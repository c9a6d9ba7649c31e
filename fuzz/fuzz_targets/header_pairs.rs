//! The headers of a request as the host hands them over: any bytes are read, and those of a list that was written say what
//! was put into it.
#![no_main]

use inference_picker::header_pairs::HeaderPairs;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 3] = [":path", "x-user", ""];

fuzz_target!(|bytes: &[u8]| {
    let any = HeaderPairs::new(bytes.to_vec());
    for name in NAMES {
        // Of several values, commas stand between, no more of them than there are sizes in front.
        assert!(any.value(name).is_none_or(|value| value.len() <= bytes.len()));
    }
    check_written(&String::from_utf8_lossy(bytes));
});

/// Names and values are the text's lines, in turn.
fn check_written(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    let pairs: Vec<(&str, &str)> = lines.as_chunks().0.iter().map(|[name, value]| (*name, *value)).collect();
    let written = HeaderPairs::of(&pairs);
    for (name, _) in &pairs {
        let values = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| *value);
        let expected = values.collect::<Vec<_>>().join(",");
        assert_eq!(written.value(name).as_deref(), Some(expected.as_bytes()));
    }
    assert_eq!(written.value("\n"), None);
}
