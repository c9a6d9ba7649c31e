//! What a real server was sent and when it answered: the files `envoy-test/traces/served_*.csv`, written and read.
//!
//! They have no prompts. A prompt is some shared prefix, or none, and tokens of its own; both are drawn from their numbers,
//! for the real server and for the simulated one alike.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Names the columns. Times are in milliseconds; those of an answer are counted from the arrival of its request.
const HEAD: &str =
    "arrival_ms,prefix,prefix_tokens,prompt_tokens,output_tokens,cached_tokens,first_token_ms,end_to_end_ms";

/// Token ids that both models have: neither the first ones, which are no text, nor the last ones, which only one has.
const TOKEN_FIRST: u64 = 3;
const TOKEN_COUNT: u64 = 90;
/// Tells the tokens of prefixes from those of single requests.
const PREFIX_TEXT: u64 = 1 << 32;

/// A request as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentRequest {
    /// Counted from the start of the recording.
    pub arrival: Duration,
    /// The number of the prefix with which its prompt begins, and that prefix's length.
    pub prefix: Option<(u32, usize)>,
    /// All of the prompt.
    pub prompt_tokens: usize,
    pub output_tokens: usize,
}

/// What a real server made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServedRequest {
    pub sent: SentRequest,
    pub cached_tokens: usize,
    /// Counted from the arrival, as is the end.
    pub first_token: Duration,
    pub end_to_end: Duration,
}

impl SentRequest {
    /// Its tokens. `place` is its place in the trace.
    pub fn prompt(&self, place: usize) -> Vec<u32> {
        let (prefix, shared_tokens) = self.prefix.unwrap_or_default();
        let shared = (0..shared_tokens).map(|index| token(PREFIX_TEXT + u64::from(prefix), index));
        let own = (shared_tokens..self.prompt_tokens).map(|index| token(place as u64, index));
        shared.chain(own).collect()
    }
}

impl ServedRequest {
    /// The time for each token after the first, in the mean; nothing where there was none.
    pub fn per_token(&self) -> Option<Duration> {
        let further =
            u32::try_from(self.sent.output_tokens.checked_sub(1)?).ok().filter(|&tokens| tokens > 0)?;
        Some(self.end_to_end.saturating_sub(self.first_token) / further)
    }
}

/// One of the tokens of a text that is named by a number (the mixing steps are those of SplitMix64).
fn token(text: u64, index: usize) -> u32 {
    let mut mixed = (text << 20).wrapping_add(index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % TOKEN_COUNT + TOKEN_FIRST) as u32
}

/// The text of a trace.
pub fn write(trace: &[ServedRequest]) -> String {
    let rows = trace.iter().map(|served| {
        let ServedRequest { sent, cached_tokens, first_token, end_to_end } = served;
        let (prefix, prefix_tokens) = sent.prefix.unwrap_or_default();
        let SentRequest { prompt_tokens, output_tokens, .. } = sent;
        let [arrival, first, end] = [sent.arrival, *first_token, *end_to_end].map(milliseconds);
        format!(
            "{arrival},{prefix},{prefix_tokens},{prompt_tokens},{output_tokens},{cached_tokens},{first},{end}\n"
        )
    });
    format!("{HEAD}\n{}", rows.collect::<String>())
}

/// Reads what [`write()`] has written.
///
/// # Errors
/// Another head, a field that is missing or no number, requests that are not in the order in which they arrived.
pub fn read(text: &str) -> Result<Vec<ServedRequest>> {
    let mut lines = text.lines();
    ensure!(lines.next() == Some(HEAD), "the head is not that of a trace");
    let trace: Vec<_> = lines.map(|line| row(line).context(line.to_owned())).collect::<Result<_>>()?;
    ensure!(trace.is_sorted_by_key(|served| served.sent.arrival), "not in the order of arrivals");
    Ok(trace)
}

fn row(line: &str) -> Result<ServedRequest> {
    let mut fields = line.split(',');
    let mut field = || fields.next().context("a field is missing");
    let arrival = time(field()?)?;
    let (prefix, prefix_tokens) = (field()?.parse()?, field()?.parse()?);
    let sent = SentRequest {
        arrival,
        prefix: (prefix_tokens > 0).then_some((prefix, prefix_tokens)),
        prompt_tokens: field()?.parse()?,
        output_tokens: field()?.parse()?,
    };
    ensure!(prefix_tokens <= sent.prompt_tokens, "a prefix longer than the prompt");
    Ok(ServedRequest {
        sent,
        cached_tokens: field()?.parse()?,
        first_token: time(field()?)?,
        end_to_end: time(field()?)?,
    })
}

/// To the microsecond.
fn milliseconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_millis(), time.subsec_micros() % 1_000)
}

fn time(text: &str) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(text.parse::<f64>()? / 1_000.0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> ServedRequest {
        ServedRequest {
            sent: SentRequest {
                arrival: Duration::from_micros(1_234_005),
                prefix: Some((3, 96)),
                prompt_tokens: 120,
                output_tokens: 5,
            },
            cached_tokens: 64,
            first_token: Duration::from_millis(40),
            end_to_end: Duration::from_micros(90_700),
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let alone = ServedRequest { sent: SentRequest { prefix: None, ..served().sent }, ..served() };
        let text = write(&[served(), alone]);
        assert_eq!(text.lines().nth(1), Some("1234.005,3,96,120,5,64,40.000,90.700"));
        assert_eq!(read(&text).unwrap(), [served(), alone]);
    }

    #[test]
    fn a_trace_that_is_not_whole_is_refused() {
        let good = write(&[served()]);
        assert!(read(&good).is_ok());
        for bad in [
            good.replace("arrival_ms", "arrival"),
            good.replace(",90.700", ""),
            good.replace("1234.005", "soon"),
            good.replace("1234.005", "-1"),
            good.replace(",96,", ",960,"),
            good.clone() + "1.000,0,0,10,5,0,1.000,2.000\n",
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn prompts_share_the_tokens_of_their_prefix_and_no_others() {
        let [one, other] = [7, 8].map(|place| served().sent.prompt(place));
        assert_eq!(one.len(), 120);
        assert_eq!(one[..96], other[..96]);
        assert_ne!(one[96..], other[96..]);
        let another_prefix = SentRequest { prefix: Some((4, 96)), ..served().sent };
        assert_ne!(another_prefix.prompt(7)[..96], one[..96]);
    }

    #[test]
    fn each_token_after_the_first_took_its_share() {
        assert_eq!(served().per_token(), Some(Duration::from_micros(12_675)));
        let short = ServedRequest { sent: SentRequest { output_tokens: 1, ..served().sent }, ..served() };
        assert_eq!(short.per_token(), None);
    }
}
