//! How an overview is drawn: a line for the whole, a table of pods, a table of models.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use envoy_test::statistics::{Model, Overview, Pod};
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use ratatui::{Frame, Terminal};

use crate::format::{bar, count, percent, rate, time};
use crate::window::Window;

/// From this usage of a KV cache on, vLLM begins to put requests back.
const KV_CACHE_FULL: f64 = 0.9;
/// The plugin's default for `metricsStaleAfter`.
const METRICS_STALE_MS: f64 = 500.0;
const COLUMN_SPACING: u16 = 2;
/// The line for the whole, and an empty one below it and between the tables.
const LINES_BESIDE_TABLES: usize = 3;

/// One column, as wide as the widest of its texts; numbers stand at its right.
struct Column<T> {
    title: &'static str,
    text: fn(&T) -> String,
    is_number: bool,
}

/// The least important last: what does not fit is left out.
const POD_COLUMNS: [Column<Pod>; 10] = [
    Column { title: "POD", text: |pod| pod.endpoint.clone(), is_number: false },
    Column { title: "RUNNING", text: |pod| count(pod.running), is_number: true },
    Column { title: "WAITING", text: |pod| count(pod.waiting), is_number: true },
    Column { title: "KV CACHE", text: |pod| bar(pod.kv_cache_share), is_number: false },
    Column { title: "IN FLIGHT", text: |pod| count(pod.in_flight_requests), is_number: true },
    Column { title: "TOKENS", text: |pod| count(pod.in_flight_tokens), is_number: true },
    Column { title: "PICKS/S", text: |pod| rate(pod.picks_per_s), is_number: true },
    Column { title: "SHARE", text: |pod| percent(pod.picks_share), is_number: true },
    Column { title: "AGE", text: |pod| time(pod.metrics_age_ms), is_number: true },
    Column { title: "POOL", text: |pod| pod.pool.clone(), is_number: false },
];

const MODEL_COLUMNS: [Column<Model>; 9] = [
    Column { title: "MODEL", text: |model| model.name.clone(), is_number: false },
    Column { title: "REQUESTS/S", text: |model| rate(model.requests_per_s), is_number: true },
    Column { title: "PROMPT TOKENS/S", text: |model| rate(model.prompt_tokens_per_s), is_number: true },
    Column { title: "HITS", text: |model| percent(model.hit_share), is_number: true },
    Column { title: "ANSWER TOKENS/S", text: |model| rate(model.completion_tokens_per_s), is_number: true },
    Column { title: "TTFT MEAN", text: |model| time(model.first_token_mean_ms), is_number: true },
    Column { title: "TTFT P50", text: |model| time(model.first_token_p50_ms), is_number: true },
    Column { title: "TTFT P90", text: |model| time(model.first_token_p90_ms), is_number: true },
    Column { title: "TPOT MEAN", text: |model| time(model.per_token_mean_ms), is_number: true },
];

pub struct Screen {
    admin: SocketAddr,
    elapsed: Duration,
    overview: Overview,
}

impl Screen {
    pub fn of(window: &Window) -> Screen {
        let (overview, elapsed) = window.overview();
        Screen { admin: window.admin(), elapsed, overview }
    }

    pub fn draw(&self, frame: &mut Frame<'_>) {
        let pod_lines = self.overview.pods.len() + 1;
        let [whole, _, pods, _, models] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(u16::try_from(pod_lines).unwrap_or(u16::MAX)),
            Constraint::Length(1),
            Constraint::Min(0),
        ])
        .areas(frame.area());
        frame.render_widget(Paragraph::new(self.whole()), whole);
        draw_table(frame, pods, &POD_COLUMNS, &self.overview.pods, pod_style);
        draw_table(frame, models, &MODEL_COLUMNS, &self.overview.models, |_| Style::new());
    }

    /// The frame as plain text, as high as it needs to be.
    pub fn text(&self, width: u16) -> Result<String> {
        let height = LINES_BESIDE_TABLES + self.overview.pods.len() + self.overview.models.len() + 2;
        let mut terminal = Terminal::new(TestBackend::new(width, u16::try_from(height)?))?;
        terminal.draw(|frame| self.draw(frame))?;
        Ok(plain(terminal.backend().buffer()))
    }

    fn whole(&self) -> Line<'static> {
        let totals = &self.overview.totals;
        let seconds = self.elapsed.as_secs_f64();
        let per_s = |amount: f64| if seconds > 0.0 { rate(amount / seconds) } else { rate(0.0) };
        Line::from(format!(
            "http://{}   last {seconds:.0} s   {} requests/s   {} refused/s   {:.0} queued   {} cached",
            self.admin,
            per_s(totals.requests),
            per_s(totals.refusals),
            totals.queued_requests,
            percent(totals.hit_share()),
        ))
        .bold()
    }
}

/// Full or stale pods stand out.
fn pod_style(pod: &Pod) -> Style {
    if pod.metrics_age_ms.is_some_and(|age_ms| age_ms >= METRICS_STALE_MS) {
        Style::new().fg(Color::Red)
    } else if pod.kv_cache_share.is_some_and(|share| share >= KV_CACHE_FULL) {
        Style::new().fg(Color::Yellow)
    } else {
        Style::new()
    }
}

fn draw_table<T>(
    frame: &mut Frame<'_>,
    area: Rect,
    columns: &[Column<T>],
    items: &[T],
    style: fn(&T) -> Style,
) {
    let texts: Vec<Vec<String>> =
        items.iter().map(|item| columns.iter().map(|column| (column.text)(item)).collect()).collect();
    let widths = columns.iter().enumerate().map(|(place, column)| {
        let widest = texts.iter().map(|row| row[place].chars().count()).max().unwrap_or_default();
        widest.max(column.title.len()) as u16
    });
    let widths: Vec<u16> = widths.collect();
    let count = fitting(&widths, area.width);
    let (columns, widths) = (&columns[..count], &widths[..count]);
    let cell = |column: &Column<T>, text: String| {
        let text = Text::from(text);
        Cell::new(if column.is_number { text.right_aligned() } else { text })
    };
    let header = Row::new(columns.iter().map(|column| cell(column, column.title.to_owned())));
    let rows = texts.iter().zip(items).map(|(texts, item)| {
        Row::new(columns.iter().zip(texts).map(|(column, text)| cell(column, text.clone())))
            .style(style(item))
    });
    let table = Table::new(rows, widths.to_vec()).header(header.dim()).column_spacing(COLUMN_SPACING);
    frame.render_widget(table, area);
}

/// How many of the columns there is room for.
fn fitting(widths: &[u16], room: u16) -> usize {
    let ends = widths.iter().scan(0, |end, width| {
        let this_end = *end + width;
        *end = this_end + COLUMN_SPACING;
        Some(this_end)
    });
    ends.take_while(|end| *end <= room).count()
}

/// The lines of a buffer, without what is empty at their ends.
fn plain(buffer: &Buffer) -> String {
    let lines = buffer.content.chunks(buffer.area.width.into()).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use envoy_test::statistics::Page;

    use super::*;

    /// What an Envoy printed twenty-six seconds after its start, with the addresses that the pods usually have.
    const RECORDED: &str = include_str!("recorded.prom");
    const AGE: &str =
        "inference_picker_endpoint_metrics_age_ms{pool=\"vllm-llama2-7b-pool\",endpoint=\"127.0.0.11:8000\"}";

    fn screen(page: &str) -> Screen {
        let elapsed = Duration::from_secs(10);
        let overview = Overview::between(&Page::default(), &Page::parse(page), elapsed);
        Screen { admin: SocketAddr::from(([127, 0, 0, 1], 9901)), elapsed, overview }
    }

    fn drawn(screen: &Screen) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(120, 20)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().buffer().clone()
    }

    #[test]
    fn a_recorded_page_is_shown_as_pods_and_models() {
        let expected = "\
http://127.0.0.1:9901   last 10 s   7.2 requests/s   0.0 refused/s   0 queued   26% cached

POD              RUNNING  WAITING  KV CACHE         IN FLIGHT  TOKENS  PICKS/S  SHARE    AGE  POOL
127.0.0.11:8000       14        1  ▇▇▇·······  30%         16    5942      3.4    25%  22 ms  vllm-llama2-7b-pool
127.0.0.12:8000       15        5  ▇▇▇▇▇·····  46%         21   14706      4.3    32%   7 ms  vllm-llama2-7b-pool
127.0.0.13:8000        6        4  ▇▇▇·······  30%         11   14241      2.7    20%  47 ms  vllm-llama2-7b-pool
127.0.0.14:8000        9        5  ▇▇▇·······  29%         14   15032      3.2    24%   7 ms  vllm-llama2-7b-pool

MODEL          REQUESTS/S  PROMPT TOKENS/S  HITS  ANSWER TOKENS/S  TTFT MEAN  TTFT P50  TTFT P90  TPOT MEAN
sql-lora              1.1             2529   35%              165    1716 ms   2050 ms   3135 ms      25 ms
tiny                  2.6             5596   27%              491    1873 ms   2050 ms   3000 ms      24 ms
tweet-summary         1.2             2864   31%              210    2533 ms   2850 ms   3430 ms      23 ms
unknown               2.3             6032   20%              484    1384 ms   1300 ms   2063 ms      31 ms";
        assert_eq!(screen(RECORDED).text(120).unwrap(), expected);
    }

    #[test]
    fn pods_that_are_full_or_stale_stand_out() {
        let check = |page: &str, expected: Color| {
            let buffer = drawn(&screen(page));
            assert_eq!(buffer[(0, 3)].fg, expected, "{}", plain(&buffer));
        };
        let with = |name: &str, value: u32| {
            let series = AGE.replace("metrics_age_ms", name);
            let lines = RECORDED.lines().map(|line| match line.starts_with(&series) {
                true => format!("{series} {value}"),
                false => line.to_owned(),
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        check(RECORDED, Color::Reset);
        check(&with("kv_cache_permille", 950), Color::Yellow);
        check(&with("metrics_age_ms", 2000), Color::Red);
    }

    #[test]
    fn what_no_page_has_is_a_dash() {
        let text =
            screen("inference_picker_picks{pool=\"p\",endpoint=\"127.0.0.1:8000\"} 5").text(120).unwrap();
        let pod: Vec<&str> = text.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(pod, ["127.0.0.1:8000", "-", "-", "-", "-", "-", "0.5", "100%", "-", "p"]);
    }

    #[test]
    fn a_narrow_terminal_has_the_columns_that_fit() {
        let text = screen(RECORDED).text(40).unwrap();
        let line = |place: usize| text.lines().nth(place).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(line(2), ["POD", "RUNNING", "WAITING"], "{text}");
        assert_eq!(line(3), ["127.0.0.11:8000", "14", "1"], "{text}");
        assert_eq!(line(8), ["MODEL", "REQUESTS/S"], "{text}");
    }
}
