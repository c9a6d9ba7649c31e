//! The file of counters: a line for each mutex, of numbers of 64 bits.

/// The environment variable with the file's name.
pub const FILE_VARIABLE: &str = "LOCK_WATCH_FILE";

/// Numbers of a line: address, locks, waits, nanoseconds waited, nanoseconds held, interruptions, and one that is the writer's.
const NUMBERS: usize = 7;
pub const LINE_BYTES: usize = NUMBERS * size_of::<u64>();
