//! How many instructions a program executes in user mode: unlike its processor time, a number that neither the machine's
//! other work nor its caches change. Linux only, and only where the processor's counters may be read: virtual machines
//! often hide them, containers often forbid it.

use std::fs;
use std::io;

use perf_event::events::Hardware;
use perf_event::{Builder, Counter};

/// Counts those of all threads that a process has, and of threads that these start.
#[derive(Debug)]
pub struct Instructions {
    threads: Vec<Counter>,
}

impl Instructions {
    /// Of this process, from now on.
    ///
    /// # Errors
    /// A machine on which they cannot be counted; a process or a thread of it that has just ended.
    pub fn of_process(process: u32) -> io::Result<Instructions> {
        let threads = fs::read_dir(format!("/proc/{process}/task"))?.map(|entry| count_thread(&entry?));
        Ok(Instructions { threads: threads.collect::<io::Result<_>>()? })
    }

    /// How many there were so far.
    ///
    /// # Errors
    /// Those of reading a counter.
    pub fn count(&mut self) -> io::Result<u64> {
        self.threads.iter_mut().map(Counter::read).sum()
    }
}

fn count_thread(entry: &fs::DirEntry) -> io::Result<Counter> {
    let thread = entry.file_name().to_str().and_then(|name| name.parse().ok());
    let thread = thread.ok_or(io::ErrorKind::InvalidData)?;
    let mut builder = Builder::new().kind(Hardware::INSTRUCTIONS).observe_pid(thread);
    builder.inherit(true);
    let mut counter = builder.build()?;
    counter.enable()?;
    Ok(counter)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn what_a_process_does_is_counted_where_the_machine_allows_it() {
        const STEPS: u64 = 10_000;
        let steps = format!("read line; i=0; while [ $i -lt {STEPS} ]; do i=$((i+1)); done");
        let mut process = Command::new("sh").args(["-c", &steps]).stdin(Stdio::piped()).spawn().unwrap();
        let counted = Instructions::of_process(process.id());
        // It has waited for the end of its input.
        drop(process.stdin.take());
        assert!(process.wait().unwrap().success());
        match counted {
            Ok(mut instructions) => assert!(instructions.count().unwrap() > STEPS),
            Err(error) => eprintln!("instructions are not counted on this machine: {error}"),
        }
    }

    #[test]
    fn a_process_that_is_not_there_has_none() {
        assert!(Instructions::of_process(u32::MAX).is_err());
    }
}
