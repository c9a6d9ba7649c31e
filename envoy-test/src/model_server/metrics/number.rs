//! Numbers as the Prometheus client for Python prints them.

/// Prints `value` as that client does: `0.0`, `16.0`, `1.795322263415639e+09`, `+Inf`.
pub fn python_number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let plain = format!("{value:?}");
    match plain.find('.') {
        Some(point) if value > 0.0 && point > 6 => scientific(&plain, point),
        _ => plain,
    }
}

fn scientific(plain: &str, point: usize) -> String {
    let digits = format!("{}.{}{}", &plain[..1], &plain[1..point], &plain[point + 1..]);
    format!("{}e+{:02}", digits.trim_end_matches(['0', '.']), point - 1)
}

#[cfg(test)]
mod tests {
    use super::python_number;

    #[test]
    fn numbers_look_as_on_a_recorded_page() {
        let cases = [
            (0.0, "0.0"),
            (16.0, "16.0"),
            (0.03344481605351168, "0.03344481605351168"),
            (14584.0, "14584.0"),
            (4678774784.0, "4.678774784e+09"),
            (1795322263.415639, "1.795322263415639e+09"),
            (f64::INFINITY, "+Inf"),
            (f64::NAN, "NaN"),
        ];
        for (value, printed) in cases {
            assert_eq!(python_number(value), printed);
        }
    }
}
