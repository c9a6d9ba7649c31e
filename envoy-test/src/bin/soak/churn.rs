//! What goes on while clients send.

use std::time::{Duration, Instant};

use anyhow::Result;
use envoy_test::faults::Stage;
use envoy_test::model_server::{Knobs, MetricsMode};

/// The time between two changes.
const STEP: Duration = Duration::from_secs(1);
/// How many times faster than a real one each simulated pod is.
const SPEED: f64 = 20.0;
/// Every so many changes, memory is looked at and shown.
const STEPS_A_SAMPLE: usize = 10;

/// The memory Envoy held, and when.
pub struct Sample {
    pub after: Duration,
    pub memory_bytes: u64,
}

pub fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Changes one thing after the other until the time is over; then all is well again.
pub fn run(stage: &mut Stage, lasts: Duration) -> Result<Vec<Sample>> {
    stage.pods.servers().for_each(|pod| pod.set(|knobs| *knobs = well()));
    let started_at = Instant::now();
    let mut samples = Vec::new();
    let mut step = 0;
    while started_at.elapsed() < lasts {
        change(stage, step)?;
        if step.is_multiple_of(STEPS_A_SAMPLE) {
            let sample = Sample { after: started_at.elapsed(), memory_bytes: stage.envoy()?.memory_bytes()? };
            println!("{:>5} s {:>8.1} MiB", sample.after.as_secs(), mebibytes(sample.memory_bytes));
            samples.push(sample);
        }
        std::thread::sleep(STEP);
        step += 1;
    }
    stage.pods.servers().for_each(|pod| pod.set(|knobs| *knobs = well()));
    Ok(samples)
}

/// In turn: a pod dies; it comes back, and another's metrics are of no use; that is over, and a configuration is pushed.
fn change(stage: &mut Stage, step: usize) -> Result<()> {
    let (first, second) = (step / 3 % 4, (step / 3 + 1) % 4);
    match step % 3 {
        0 => stage.pods.server(first).set(|knobs| knobs.refuse = true),
        1 => {
            stage.pods.server(first).set(|knobs| knobs.refuse = false);
            stage.pods.server(second).set(|knobs| knobs.metrics = useless(step));
        }
        _ => {
            stage.pods.server(second).set(|knobs| knobs.metrics = MetricsMode::Live);
            stage
                .listener
                .edit_plugin(|plugin| plugin["maxConsecutiveFailures"] = (3 + step / 3 % 2).into())?;
            anyhow::ensure!(stage.push()?, "a configuration was refused");
        }
    }
    Ok(())
}

/// Fast enough that it is the gateway that is under load.
fn well() -> Knobs {
    Knobs { speed: SPEED, ..Knobs::default() }
}

fn useless(step: usize) -> MetricsMode {
    match step / 3 % 5 {
        0 => MetricsMode::Hang,
        1 => MetricsMode::Garbage,
        2 => MetricsMode::Half,
        3 => MetricsMode::Huge(3 << 20),
        _ => MetricsMode::Status(500),
    }
}
