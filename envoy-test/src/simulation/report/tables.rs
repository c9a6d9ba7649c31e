//! Markdown tables.

use super::Measures;
use crate::simulation::comparison::{Case, Outcome};
use crate::simulation::objective::{Carried, CarriedOutcome, PODS_MAX};
use crate::simulation::picker::PickerKind;
use crate::simulation::pool::PoolSettings;
use crate::table::Table;

/// One line a case: the mean times to first token and end to end of everybody who picks. All cases must have the same
/// pickers.
pub fn first_tokens(outcomes: &[Outcome]) -> String {
    let pickers = outcomes.first().map_or(&[][..], |outcome| &outcome.case.pickers);
    let names = pickers.iter().map(|picker| picker.name());
    let mut table = Table::new("first token / end to end, mean ms", names);
    for outcome in outcomes {
        let cell = |measures: &Measures| {
            format!("{:.0} / {:.0}", measures.first_token_ms.mean, measures.end_to_end_ms.mean)
        };
        table.row(&title(&outcome.case), outcome.measures.iter().map(|(_, measures)| cell(measures)));
    }
    table.to_string()
}

/// One line a kind of traffic: the highest rate at which everybody keeps the objective.
pub fn highest_rates(outcomes: &[CarriedOutcome]) -> String {
    let rate =
        |carried: &Carried| carried.highest_per_s.map_or("none".to_owned(), |rate| format!("{rate:.1}"));
    carried_table("requests/s", outcomes, |outcome| outcome.workload.name().to_owned(), rate)
}

/// One line a kind of traffic: the fewest pods with which everybody keeps the objective.
pub fn fewest_pods(outcomes: &[CarriedOutcome]) -> String {
    let pods = |carried: &Carried| {
        carried.fewest_pods.map_or(format!("more than {PODS_MAX}"), |pods| pods.to_string())
    };
    let name = |outcome: &CarriedOutcome| format!("{}, {:.1}/s", outcome.workload.name(), outcome.rate_per_s);
    carried_table("pods", outcomes, name, pods)
}

fn carried_table(
    what: &str,
    outcomes: &[CarriedOutcome],
    name: impl Fn(&CarriedOutcome) -> String,
    cell: impl Fn(&Carried) -> String,
) -> String {
    let pickers = outcomes.first().map_or(&[][..], |outcome| &outcome.carried);
    let mut table = Table::new(what, pickers.iter().map(|(picker, _)| picker.name()));
    for outcome in outcomes {
        table.row(&name(outcome), outcome.carried.iter().map(|(_, carried)| cell(carried)));
    }
    table.to_string()
}

/// One line a case: how much less, or more, one picker's times are than the others', in percent.
pub fn against_others(outcomes: &[Outcome], picker: PickerKind) -> String {
    const OTHERS: [PickerKind; 4] =
        [PickerKind::Oracle, PickerKind::GuideSchedule, PickerKind::DefaultWeights, PickerKind::LeastRequest];
    let columns =
        OTHERS.map(|other| format!("{}: first token, mean | p90 | end to end, mean | ", other.name()));
    let rule = "--:|".repeat(3 * OTHERS.len());
    let head = format!("| {} against | {}\n|---|{rule}\n", picker.name(), columns.concat());
    let mut table = Table::with_head(&head);
    for outcome in outcomes {
        let measured = |picker| outcome.measures.iter().find(|(other, _)| *other == picker);
        let Some((_, own)) = measured(picker) else { continue };
        let cells = OTHERS.iter().flat_map(|&other| {
            measured(other).map_or([const { String::new() }; 3], |(_, other)| {
                [
                    percent(own.first_token_ms.mean, other.first_token_ms.mean),
                    percent(own.first_token_ms.p90, other.first_token_ms.p90),
                    percent(own.end_to_end_ms.mean, other.end_to_end_ms.mean),
                ]
            })
        });
        table.row(&title(&outcome.case), cells);
    }
    table.to_string()
}

/// One line a case of several workers: how much longer, or shorter, the mean time to first token is than with one, in percent.
/// All cases must have the same pickers.
pub fn against_one_worker(outcomes: &[Outcome]) -> String {
    let pickers = outcomes.first().map_or(&[][..], |outcome| &outcome.case.pickers);
    let names = pickers.iter().map(|picker| picker.name());
    let mut table = Table::new("first token against one worker's, mean", names);
    for outcome in outcomes.iter().filter(|outcome| outcome.case.gateways.workers > 1) {
        let of_one = |other: &&Outcome| {
            other.case.gateways.workers == 1 && other.case.workload == outcome.case.workload
        };
        let Some(one) = outcomes.iter().find(of_one) else { continue };
        let mean = |(_, measures): &(PickerKind, Measures)| measures.first_token_ms.mean;
        let pairs = outcome.measures.iter().zip(&one.measures);
        table.row(&title(&outcome.case), pairs.map(|(own, one)| percent(mean(own), mean(one))));
    }
    table.to_string()
}

/// `−12 %`, `+3 %`.
fn percent(own: f64, other: f64) -> String {
    let percent = ((own / other - 1.0) * 100.0).round();
    // Minus zero is zero.
    if percent < 0.0 { format!("−{:.0} %", -percent) } else { format!("+{:.0} %", percent.abs()) }
}

/// One line a picker: everything that was measured.
pub fn details(outcomes: &[Outcome]) -> String {
    const HEAD: &str = "\
        | traffic | picker | first token: mean ms | p50 | p90 | p99 | further tokens, each: p90 ms \
        | end to end: mean ms | output tokens/s | cache hits | busiest pod by tokens | by requests |\n\
        |---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    let mut table = Table::with_head(HEAD);
    for outcome in outcomes {
        for (picker, measures) in &outcome.measures {
            let title = format!("{} | {}", title(&outcome.case), picker.name());
            table.row(&title, detail_cells(measures));
        }
    }
    table.to_string()
}

fn detail_cells(measures: &Measures) -> [String; 10] {
    let times = measures.first_token_ms;
    [
        format!("{:.0}", times.mean),
        format!("{:.0}", times.p50),
        format!("{:.0}", times.p90),
        format!("{:.0}", times.p99),
        format!("{:.1}", measures.per_token_ms.p90),
        format!("{:.0}", measures.end_to_end_ms.mean),
        format!("{:.0}", measures.output_tokens_per_s),
        format!("{:.0} %", measures.cache_hit_share * 100.0),
        format!("{:.2}", measures.busiest_by_tokens),
        format!("{:.2}", measures.busiest_by_requests),
    ]
}

/// `conversation, 24.0/s, 2 gateways`: the traffic, and what is unusual.
fn title(case: &Case) -> String {
    let PoolSettings { pods, slow_pod, engine_speed, kv_share, radix_cache } = case.pool;
    let usual = PoolSettings::default();
    let mut title = format!("{}, {:.1}/s", case.workload.name(), case.rate_per_s);
    let mut add = |unusual: bool, text: String| {
        if unusual {
            title += ", ";
            title += &text;
        }
    };
    add(pods != usual.pods, format!("{pods} pods"));
    add(slow_pod, "one pod three times slower".to_owned());
    add(engine_speed != usual.engine_speed, format!("engines {engine_speed} times as fast"));
    add(kv_share != usual.kv_share, format!("KV cache of {:.0} %", kv_share * 100.0));
    add(radix_cache, "SGLang's cache".to_owned());
    add(case.gateways.workers > 1, format!("{} workers", case.gateways.workers));
    add(case.gateways.gateways > 1, format!("{} gateways", case.gateways.gateways));
    if let Some(lateness_ms) = case.gateways.peers_ms {
        add(true, format!("state exchanged {lateness_ms} ms late"));
    }
    title
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::workload::Workload;

    #[test]
    fn less_and_more_have_different_signs() {
        assert_eq!((percent(88.0, 100.0), percent(103.0, 100.0)), ("−12 %".into(), "+3 %".into()));
    }

    #[test]
    fn a_title_says_what_is_unusual() {
        let mut case = Case::usual(Workload::Random, 1.0);
        case.rate_per_s = 24.0;
        assert_eq!(title(&case), "random, 24.0/s");
        case.pool.slow_pod = true;
        case.gateways.gateways = 2;
        assert_eq!(title(&case), "random, 24.0/s, one pod three times slower, 2 gateways");
        case.gateways.peers_ms = Some(25);
        assert!(title(&case).ends_with(", 2 gateways, state exchanged 25 ms late"));
    }
}
