//! The Prometheus text format and OpenMetrics', borrowed from the page and read only as far as asked.
//!
//! [`lines`] finds lines, [`after_name`] says whether a line is a sample of a given metric, and only then does
//! [`Sample::parse`] look at labels and value. Most lines of a page are of no interest, so most lines cost one
//! search for a line feed. There are three outcomes: a sample, `None` for a malformed line, the end of the page.
//!
//! It does not check what is not asked for: lines of other metrics may hold anything, invalid UTF-8 as well.

use memchr::{memchr, memchr_iter, memchr2};

/// Whether the page has its end: a line feed, or OpenMetrics' mark, which may lack one.
pub fn is_whole(page: &[u8]) -> bool {
    page.ends_with(b"\n") || page.ends_with(b"\n# EOF")
}

/// The lines of the page that are not comments, without their line feed and leading blanks. What follows the
/// last line feed is not a line: nobody can know that it is whole.
///
/// A family of metrics whose name is not wanted is passed over, from its `# TYPE` to where the next one begins, by one search
/// for that: all samples of a family stand behind its type, and most lines of a page are those of histograms.
pub fn lines(page: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> impl Iterator<Item = &[u8]> {
    let mut rest = page;
    std::iter::from_fn(move || {
        loop {
            let (line, behind) = rest.split_at_checked(memchr(b'\n', rest)? + 1)?;
            rest = behind;
            let line = skip_blanks(line.strip_suffix(b"\n").unwrap_or(line));
            if line.first() != Some(&b'#') {
                return Some(line);
            }
            if family(line).is_some_and(|family| !is_wanted(family)) {
                rest = behind.get(next_family(behind)..)?;
            }
        }
    })
}

/// The family whose type this comment declares.
fn family(comment: &[u8]) -> Option<&[u8]> {
    let text = comment.strip_prefix(b"# TYPE ")?;
    text.split(|byte| matches!(byte, b' ' | b'\t')).next().filter(|name| !name.is_empty())
}

/// Where the next line begins that declares a family's type. Other `#` are comments, or stand in labels' values.
fn next_family(text: &[u8]) -> usize {
    let begins = |place: &usize| {
        let (before, line) = text.split_at_checked(*place).unwrap_or_default();
        (before.is_empty() || before.ends_with(b"\n"))
            && (line.starts_with(b"# HELP ") || line.starts_with(b"# TYPE "))
    };
    memchr_iter(b'#', text).find(begins).unwrap_or(text.len())
}

/// What follows the metric's name, if the line is a sample of that metric: the name must end there, as
/// `num_requests_waiting` is also the beginning of `num_requests_waiting_by_reason`. The one byte behind the
/// name is looked at first, since it rules out nearly every line. In OpenMetrics, names may have an underscore where the
/// text format has a colon: Python's client prints them so.
#[inline]
pub fn after_name<'a>(line: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let delimited = matches!(rest.first()?, b'{' | b' ' | b'\t');
    (delimited && (start == name.as_bytes() || begins_alike(name, start))).then_some(rest)
}

/// Whether the name begins so, with its colons or with underscores in their place.
pub fn begins_alike(name: &str, start: &[u8]) -> bool {
    let alike = |(one, other): (u8, &u8)| one == *other || (one == b':' && *other == b'_');
    start.len() <= name.len() && name.bytes().zip(start).all(alike)
}

/// One sample, without its name.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    pub labels: Labels<'a>,
    pub value: f64,
}

impl<'a> Sample<'a> {
    /// Reads `{labels} value timestamp`, of which only the value must be there. `None` if it is anything else.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = skip_blanks(text);
        let Some(inside) = text.strip_prefix(b"{") else {
            return Some(Self { labels: Labels(&[]), value: value(text)? });
        };
        let mut unread = Labels(inside);
        while unread.next().is_some() {}
        let behind = skip_blanks(unread.0).strip_prefix(b"}")?;
        Some(Self { labels: Labels(inside), value: value(behind)? })
    }
}

/// The labels of a sample, as `(name, value)` with the value still escaped; see [`Labels::unescape`].
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Labels<'a> {
    /// The escaped value of the first label of that name.
    pub fn get(mut self, name: &str) -> Option<&'a [u8]> {
        self.find_map(|(label, value)| (label == name.as_bytes()).then_some(value))
    }

    /// A label's value as it was before it was put on the page. Bytes that are not UTF-8 become `U+FFFD`.
    pub fn unescape(value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        let mut plain = String::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            plain.push(match character {
                '\\' => match characters.next() {
                    Some('n') => '\n',
                    Some(escaped) => escaped,
                    None => '\\',
                },
                other => other,
            });
        }
        plain
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);

    /// Reads `name="value"` and the comma behind it. Where the next thing is not a label it stays put.
    fn next(&mut self) -> Option<Self::Item> {
        let text = skip_blanks(self.0);
        let name_end = text.iter().position(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_')?;
        let (name, rest) = text.split_at_checked(name_end).filter(|(name, _)| !name.is_empty())?;
        let quoted = skip_blanks(skip_blanks(rest).strip_prefix(b"=")?).strip_prefix(b"\"")?;
        let (value, rest) = quoted.split_at_checked(closing_quote(quoted)?)?;
        let rest = skip_blanks(rest.strip_prefix(b"\"")?);
        self.0 = match rest.split_first()? {
            (b',', behind) => behind,
            (b'}', _) => rest,
            _ => return None,
        };
        Some((name, value))
    }
}

/// Where the quoted text ends: at the first quote without a backslash before it.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let found = from + memchr2(b'"', b'\\', text.get(from..)?)?;
        if text.get(found) == Some(&b'"') {
            return Some(found);
        }
        from = found + 2;
    }
}

/// The value in front of an optional timestamp, with nothing behind them but OpenMetrics' exemplar, which begins with `#`, and
/// the carriage return of a CRLF.
fn value(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text.strip_suffix(b"\r").unwrap_or(text)).ok()?;
    let words = text.split([' ', '\t']).filter(|word| !word.is_empty());
    let mut words = words.take_while(|word| *word != "#");
    let value = words.next()?.parse().ok()?;
    let timed = words.next().is_none_or(|timestamp| timestamp.parse::<f64>().is_ok());
    (timed && words.next().is_none()).then_some(value)
}

#[inline]
fn skip_blanks(mut text: &[u8]) -> &[u8] {
    while let Some((b' ' | b'\t', rest)) = text.split_first() {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    type Expected<'a> = Option<(&'a [(&'a str, &'a str)], f64)>;

    /// The labels (unescaped) and the value of what follows a metric's name.
    #[track_caller]
    fn check(text: &str, expected: Expected<'_>) {
        let sample = Sample::parse(text.as_bytes());
        let unescape = |(name, value): (&[u8], &[u8])| (Labels::unescape(name), Labels::unescape(value));
        let read = sample.map(|sample| (sample.labels.map(unescape).collect::<Vec<_>>(), sample.value));
        let own = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        assert_eq!(read, expected.map(|(labels, value)| (labels.iter().map(own).collect(), value)), "{text}");
    }

    #[test]
    fn a_sample_has_a_value_and_perhaps_labels_and_a_timestamp() {
        check(" 7", Some((&[], 7.0)));
        check("{} 7", Some((&[], 7.0)));
        check("\t7.0\t", Some((&[], 7.0)));
        check(" 7 1795322263000", Some((&[], 7.0)));
        check(" 7 1795322263.5 ", Some((&[], 7.0)));
        check("{a=\"x\"} 7\r", Some((&[("a", "x")], 7.0)));
        check(" { a = \"x\" , b=\"\" } 7", Some((&[("a", "x"), ("b", "")], 7.0)));
        check("{a=\"x\",} 7", Some((&[("a", "x")], 7.0)));
        check(" 7 # {trace_id=\"b\"} 1 1.5", Some((&[], 7.0)));
        check("{a=\"x\"} 7 1795322263.5 # {} 1", Some((&[("a", "x")], 7.0)));
    }

    #[test]
    fn values_are_numbers_of_any_form() {
        check(" 1.7953222634160998e+09", Some((&[], 1_795_322_263.416_099_8)));
        check(" -0.5E-3", Some((&[], -0.0005)));
        check(" +Inf", Some((&[], f64::INFINITY)));
        check(" -Inf", Some((&[], f64::NEG_INFINITY)));
        assert!(Sample::parse(b" NaN").unwrap().value.is_nan());
    }

    #[test]
    fn label_values_may_hold_what_separates_labels() {
        check(r#"{a="} 1",b="c, d=\"e\""} 7"#, Some((&[("a", "} 1"), ("b", "c, d=\"e\"")], 7.0)));
        check(r#"{a="\\",b="\n",c="ü"} 7"#, Some((&[("a", "\\"), ("b", "\n"), ("c", "ü")], 7.0)));
        check("{a=\"# {x} 3\"} 7", Some((&[("a", "# {x} 3")], 7.0)));
    }

    #[test]
    fn malformed_samples_are_not_read() {
        for text in [
            "",
            " ",
            "{",
            "{}",
            "{} ",
            " x",
            " 1_0",
            " 0x1",
            " 7 x",
            " 7 1 2",
            " ü",
            "} 7",
            "{a} 7",
            "{a=} 7",
            "{a=x} 7",
            "{a=\"x} 7",
            "{a=\"x\\\"} 7",
            "{a=\"x\" 7",
            "{=\"x\"} 7",
            "{,} 7",
            "{a=\"x\"b=\"y\"} 7",
            "{a=\"x\",,b=\"y\"} 7",
            "{a b=\"x\"} 7",
            "{a=\"x\"}} 7",
            "{a=\"x\"",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_kept_out_of_values_but_not_out_of_labels() {
        assert!(Sample::parse(b" 7\xff").is_none());
        let sample = Sample::parse(b"{a=\"\xff\"} 7").unwrap();
        assert_eq!(Labels::unescape(sample.labels.get("a").unwrap()), "\u{fffd}");
    }

    #[test]
    fn the_first_of_two_labels_of_one_name_counts() {
        let sample = Sample::parse(b"{a=\"1\",b=\"2\",a=\"3\"} 7").unwrap();
        assert_eq!(["a", "b", "c"].map(|name| sample.labels.get(name)), [Some(&b"1"[..]), Some(b"2"), None]);
    }

    #[test]
    fn a_name_is_matched_to_its_end() {
        let check = |line: &str, rest: Option<&str>| {
            assert_eq!(after_name(line.as_bytes(), "queue"), rest.map(str::as_bytes), "{line}");
        };
        check("queue 7", Some(" 7"));
        check("queue\t7", Some("\t7"));
        check("queue{} 7", Some("{} 7"));
        assert_eq!(after_name(b"a_queue 7", "a:queue"), Some(&b" 7"[..]));
        assert_eq!(after_name(b"a:queue 7", "a_queue"), None);
        for other in ["queue", "queue_size 7", "queue7", "my_queue 7", "Queue 7", "que", ""] {
            check(other, None);
        }
    }

    #[test]
    fn only_finished_lines_that_are_not_comments_are_lines() {
        let check = |page: &str, expected: &[&str]| {
            let read: Vec<_> = lines(page.as_bytes(), |family| family == b"a")
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            assert_eq!(read, expected, "{page:?}");
        };
        check("a 1\nb 2\n", &["a 1", "b 2"]);
        check("a 1\nb 2", &["a 1"]);
        check("a 1\r\n\r\n\nb 2\n", &["a 1\r", "\r", "", "b 2"]);
        check("# HELP a A.\n #TYPE a gauge\n \ta 1\n", &["a 1"]);
        check("", &[]);
        check(
            "# HELP b B.\n# TYPE b gauge\nb 1\nb{x=\"# 3\"} 2\n# HELP a A.\n# TYPE a gauge\na 1\n",
            &["a 1"],
        );
        check("# TYPE b gauge\n# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# EOF", &["a 1"]);
        check("# TYPE b gauge\nb 1\n# a comment within\nb 2\n#\nb 3\n# HELP c C.\nc 1\n", &["c 1"]);
        check("# TYPE b gauge\nb 1", &[]);
        check("# TYPE \nb 1\n# TYPE\nb 2\n", &["b 1", "b 2"]);
    }

    #[test]
    fn a_page_has_its_end() {
        for (page, whole) in
            [("a 1\n", true), ("a 1\n# EOF\n", true), ("a 1\n# EOF", true), ("a 1# EOF", false)]
        {
            assert_eq!(is_whole(page.as_bytes()), whole, "{page:?}");
        }
        assert!(!is_whole(b"") && !is_whole(b"a 1"));
    }
}
