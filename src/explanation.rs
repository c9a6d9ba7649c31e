//! Why an endpoint was picked, in one short line:
//!
//! `DEFAULT cost=7 prompt_tokens=24 in_flight=1 waiting_tokens=24 queue=0 running=1 kv=0.02 metrics_age_ms=31`, and with
//! PREFIX_CACHE behind the prompt's size ` matched_blocks=3/5 uncached_tokens=9`.
//!
//! Whole numbers throughout, written by hand: the library's way to format them costs several times as much, and this is
//! written for each request.

/// Longer than nearly every line.
const USUAL_BYTES: usize = 192;

/// Digits of the largest number.
const MOST_DIGITS: usize = 20;

/// A line being written.
#[derive(Debug)]
pub struct Explanation(String);

impl Explanation {
    /// The line begins with this word.
    pub fn new(word: &str) -> Explanation {
        let mut line = String::with_capacity(USUAL_BYTES);
        line.push_str(word);
        Explanation(line)
    }

    /// ` name=7`
    pub fn add(&mut self, name: &str, value: u64) {
        self.add_word(name, "");
        self.push_number(value);
    }

    /// ` name=3/5`
    pub fn add_ratio(&mut self, name: &str, part: u64, whole: u64) {
        self.add(name, part);
        self.0.push('/');
        self.push_number(whole);
    }

    /// ` name=0.02`
    pub fn add_hundredths(&mut self, name: &str, value: f32) {
        let hundredths = (value * 100.0).round() as u64;
        self.add(name, hundredths / 100);
        self.0.push('.');
        self.push_number(hundredths / 10 % 10);
        self.push_number(hundredths % 10);
    }

    /// ` name=word`
    pub fn add_word(&mut self, name: &str, word: &str) {
        self.0.push(' ');
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(word);
    }

    /// The whole line.
    pub fn into_text(self) -> String {
        self.0
    }

    fn push_number(&mut self, mut number: u64) {
        let mut digits = [b'0'; MOST_DIGITS];
        let mut count = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            count += 1;
            if number == 0 {
                break;
            }
        }
        let written = digits.get(MOST_DIGITS - count..).unwrap_or_default();
        self.0.push_str(str::from_utf8(written).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn numbers_are_written_as_the_library_writes_them() {
        for number in [0, 1, 9, 10, 42, 99, 100, 12_345_678_901_234_567_890, u64::MAX] {
            let mut line = Explanation::new("A");
            line.add("n", number);
            line.add_ratio("of", number, 5);
            assert_eq!(line.into_text(), format!("A n={number} of={number}/5"));
        }
        for (value, expected) in
            [(0.0, "0.00"), (0.019, "0.02"), (0.5, "0.50"), (1.0, "1.00"), (12.345, "12.35")]
        {
            let mut line = Explanation::new("A");
            line.add_hundredths("kv", value);
            line.add_word("metrics", "none");
            assert_eq!(line.into_text(), format!("A kv={expected} metrics=none"));
        }
    }
}
