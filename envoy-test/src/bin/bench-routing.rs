//! `make bench-routing`: who picks best, in real time behind a real Envoy.
//!
//! It prints the figures of what the arguments name. With `--write` it plays the whole comparison instead and writes
//! `docs/routing-live.md`, its plots and `docs/routing-live.json`. With `--gateway` the requests go to a gateway that
//! runs already.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use envoy_test::envoy::binary::project_root;
use envoy_test::live::{Column, Comparison, Front, Gateway, Play, Played, PodsWatch, Traffic, report};

/// Compares picks in real time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Traffic, several times for several kinds; all kinds if none is named.
    #[arg(long)]
    traffic: Vec<Traffic>,
    /// Who picks; everybody if nobody is named.
    #[arg(long)]
    column: Vec<Column>,
    /// How long requests arrive, for each picker and kind of traffic.
    #[arg(long, value_parser = parse_positive)]
    seconds: Option<f64>,
    /// Of the traffic: the same for everybody.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// By how many milliseconds one of a hundred requests may be sent late; a cell where it is more is played again.
    #[arg(long, default_value_t = 20.0, value_parser = parse_positive)]
    late_ms: f64,
    /// Plays the whole comparison and writes docs/routing-live.md, its plots and docs/routing-live.json.
    #[arg(long)]
    write: bool,
    /// Sends to this gateway, `http://HOST:PORT`, instead of starting anything.
    #[arg(long)]
    gateway: Option<String>,
    /// The pods behind that gateway, whose metrics are read meanwhile.
    #[arg(long, value_delimiter = ',')]
    endpoints: Vec<SocketAddr>,
    /// The model to ask that gateway for; the first that it names if this is left out.
    #[arg(long)]
    model: Option<String>,
    /// LoRA adapters behind that gateway.
    #[arg(long, value_delimiter = ',')]
    adapters: Vec<String>,
    /// Requests a second to that gateway.
    #[arg(long, default_value_t = 4.0, value_parser = parse_positive)]
    rate: f64,
    /// Where the files are written; with a gateway none are if this is left out.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// So that the whole comparison takes less than ten minutes.
const SECONDS: f64 = 5.0;
/// For a gateway of which nothing is known.
const GATEWAY_SECONDS: f64 = 30.0;
/// Played a second time with the same seed, to show the noise.
const AGAIN: Traffic = Traffic::Conversation;
/// A gateway of somebody else's has servers of the usual speed.
const USUAL_SPEED: f64 = 1.0;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.gateway {
        Some(url) => measure_gateway(&arguments, url),
        None => compare(&arguments),
    }
}

fn compare(arguments: &Arguments) -> Result<()> {
    let traffics = if arguments.traffic.is_empty() { &Traffic::ALL[..] } else { &arguments.traffic };
    let columns = if arguments.column.is_empty() { &Column::ALL[..] } else { &arguments.column };
    let comparison = Comparison {
        fronts: columns.iter().copied().map(Front::Envoy).collect(),
        seconds: arguments.seconds.unwrap_or(SECONDS),
        seed: arguments.seed,
        late_ms_max: arguments.late_ms,
    };
    let (mut played, mut again) = (Played::default(), Played::default());
    comparison.play(traffics, &mut played)?;
    if arguments.write {
        comparison.play(&[AGAIN], &mut again)?;
        let folder = arguments.folder.clone().unwrap_or_else(|| project_root().join("docs"));
        report::write(&folder, &played.outcomes, &again.outcomes)?;
    } else {
        println!("{}", report::markdown(&played.outcomes, &[]));
    }
    played.check_all_measured(&again)
}

fn measure_gateway(arguments: &Arguments, url: &str) -> Result<()> {
    let gateway = Gateway::parse(url)?;
    let model = arguments.model.clone().map_or_else(|| gateway.first_model(), Ok)?;
    let mut outcomes = Vec::new();
    for traffic in arguments.traffics_anywhere() {
        let play = Play {
            traffic,
            seconds: arguments.seconds.unwrap_or(GATEWAY_SECONDS),
            seed: arguments.seed,
            rate_per_s: arguments.rate,
            speed: USUAL_SPEED,
            gateway: gateway.clone(),
            model: model.clone(),
            adapters: arguments.adapters.clone(),
            chooser: None,
            watch: Arc::new(PodsWatch::new(arguments.endpoints.clone())),
            watch_interval: None,
        };
        let outcome = play.run(url, None)?;
        outcome.print();
        outcomes.push(outcome);
    }
    println!("{}", report::markdown(&outcomes, &[]));
    arguments.folder.as_ref().map_or(Ok(()), |folder| report::write(folder, &outcomes, &[]))
}

impl Arguments {
    /// Those named; else those that need nothing of the pool, and adapters where there are some.
    fn traffics_anywhere(&self) -> Vec<Traffic> {
        if !self.traffic.is_empty() {
            return self.traffic.clone();
        }
        let adapters = (!self.adapters.is_empty()).then_some(Traffic::Adapters);
        Traffic::ANYWHERE.into_iter().chain(adapters).collect()
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number")?;
    (number.is_finite() && number > 0.0).then_some(number).ok_or("expected a number above zero".to_owned())
}
