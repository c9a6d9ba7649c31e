//! A page of vLLM 0.32 with several engines behind one port (`--data-parallel-size`): every series with an `engine` label
//! is there once for each of them. The simulated server has one engine, so its counts are reported in shares.

use super::number::python_number;

/// What every engine has for itself: a rate, a state, a setting, a date.
const NOT_SHARED: [&str; 4] =
    ["vllm:kv_cache_usage_perc{", "vllm:engine_sleep_state{", "vllm:cache_config_info{", "_created{"];
/// The engine label of a page of one engine.
const ENGINE: &str = r#"engine="0""#;

/// A page of one engine as `engines` of them print it.
pub fn multiplied(page: &str, engines: usize) -> String {
    let mut families: Vec<Vec<&str>> = Vec::new();
    for line in page.lines() {
        match families.last_mut() {
            Some(family) if !line.starts_with('#') => family.push(line),
            _ => families.push(vec![line]),
        }
    }
    families.iter().map(|family| family_of(family, engines)).collect()
}

/// A comment and the series after it: those of the first engine, then those of the next.
fn family_of(lines: &[&str], engines: usize) -> String {
    let lines_of = |engine| {
        let own = lines.iter().filter(move |line| engine == 0 || line.contains(ENGINE));
        own.map(move |line| line_of(line, engine, engines))
    };
    (0..engines).flat_map(lines_of).collect()
}

fn line_of(line: &str, engine: usize, engines: usize) -> String {
    let series = line.rsplit_once(' ').filter(|(series, _)| series.contains(ENGINE));
    let Some((series, value)) = series else {
        return format!("{line}\n");
    };
    let series = series.replace(ENGINE, &format!(r#"engine="{engine}""#));
    let shared = !NOT_SHARED.iter().any(|name| line.contains(name));
    match value.parse() {
        Ok(count) if shared => format!("{series} {}\n", python_number(share(count, engine, engines))),
        _ => format!("{series} {value}\n"),
    }
}

/// The part of a count that the engine at this place has: equal parts, the first ones one more.
pub fn share(count: f64, engine: usize, engines: usize) -> f64 {
    let engines = engines as f64;
    let rest = count % engines;
    ((count - rest) / engines) + (rest - engine as f64).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn shares_add_up_to_the_whole() {
        assert_eq!([0, 1].map(|engine| share(7.0, engine, 2)), [4.0, 3.0]);
        assert_eq!([0, 1, 2].map(|engine| share(2.0, engine, 3)), [1.0, 1.0, 0.0]);
        assert_eq!(share(5.0, 0, 1), 5.0);
    }
}
