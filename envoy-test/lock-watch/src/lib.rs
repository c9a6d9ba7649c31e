//! Counts how often a program's mutexes are locked, how often a thread had to wait for that, and how long they were held.
//!
//! Preloaded (`LD_PRELOAD`) it takes the place of `pthread_mutex_lock` and `pthread_mutex_unlock`, which the program links
//! dynamically, and counts in the file that `LOCK_WATCH_FILE` names (`layout`). Others read it while the program runs.
//! Without the variable it counts nothing.
//!
//! Each mutex has a line of the file, known by its address; those for which there is no room share the last one. What counting
//! costs, two readings of the clock and a few atomic additions, counts as waiting and holding, too: it is an upper bound.

mod layout;

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Mutexes that are distinguished. An Envoy with 32 workers and a V8 in each has a few hundred.
const MAX_MUTEXES: usize = 4_096;
/// A mutex that was held longer had its holder interrupted: that is a fact of the machine, not of the program.
const INTERRUPTED_NS: u64 = 50_000;

/// One mutex, in the file.
#[repr(C)]
struct Counters {
    address: AtomicU64,
    locks: AtomicU64,
    waits: AtomicU64,
    waited_ns: AtomicU64,
    held_ns: AtomicU64,
    interruptions: AtomicU64,
    /// Since when it is held.
    locked_at_ns: AtomicU64,
}

const _: () = assert!(size_of::<Counters>() == layout::LINE_BYTES);
const FILE_BYTES: usize = MAX_MUTEXES * layout::LINE_BYTES;

type Call = unsafe extern "C" fn(*mut libc::pthread_mutex_t) -> libc::c_int;

/// The system's own function of this name, looked up once.
struct Original {
    name: &'static std::ffi::CStr,
    address: AtomicUsize,
}

static LOCK: Original = Original { name: c"pthread_mutex_lock", address: AtomicUsize::new(0) };
static UNLOCK: Original = Original { name: c"pthread_mutex_unlock", address: AtomicUsize::new(0) };

impl Original {
    unsafe fn call(&self, mutex: *mut libc::pthread_mutex_t) -> libc::c_int {
        let mut address = self.address.load(Relaxed);
        if address == 0 {
            // SAFETY: the name ends with a zero byte.
            address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) }.addr();
            self.address.store(address, Relaxed);
        }
        if address == 0 {
            return libc::ENOSYS;
        }
        // SAFETY: libc's function of this name has this type; the mutex is the caller's.
        unsafe { std::mem::transmute::<usize, Call>(address)(mutex) }
    }
}

/// The file's lines, mapped into memory; empty where nothing is to be counted.
fn lines() -> &'static [Counters] {
    static LINES: OnceLock<&'static [Counters]> = OnceLock::new();
    // Whoever comes while another thread maps the file is not counted: it must not wait for a mutex here.
    static IS_BEGUN: AtomicU64 = AtomicU64::new(0);
    match LINES.get() {
        Some(lines) => lines,
        None if IS_BEGUN.swap(1, Relaxed) == 0 => LINES.get_or_init(|| map().unwrap_or_default()),
        None => &[],
    }
}

fn map() -> Option<&'static [Counters]> {
    let name = std::ffi::CString::new(std::env::var(layout::FILE_VARIABLE).ok()?).ok()?;
    // SAFETY: plain system calls with a name that ends with a zero byte; the mapping is as long as the file, is never unmapped,
    // starts at a page, and is of atomic numbers, for which any bytes are valid.
    unsafe {
        let file = libc::open(name.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600);
        if file < 0 || libc::ftruncate(file, libc::off_t::try_from(FILE_BYTES).ok()?) != 0 {
            return None;
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let memory = libc::mmap(ptr::null_mut(), FILE_BYTES, access, libc::MAP_SHARED, file, 0);
        libc::close(file);
        let is_mapped = memory != libc::MAP_FAILED;
        is_mapped.then(|| std::slice::from_raw_parts(memory.cast::<c_void>().cast(), MAX_MUTEXES))
    }
}

/// The line of the mutex at this address.
fn line(address: u64) -> Option<&'static Counters> {
    /// Lines that are looked at.
    const PROBES: usize = 16;
    let lines = lines();
    // The lowest bits of addresses say nothing.
    let first = usize::try_from((address >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52).ok()?;
    for step in 0..PROBES {
        let line = lines.get((first + step) % MAX_MUTEXES)?;
        match line.address.compare_exchange(0, address, Relaxed, Relaxed) {
            Ok(_) => return Some(line),
            Err(other) if other == address => return Some(line),
            Err(_) => {}
        }
    }
    lines.last()
}

fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists, and the time is ours to write.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// In place of the system's.
///
/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_lock(mutex: *mut libc::pthread_mutex_t) -> libc::c_int {
    let Some(line) = line(mutex.addr() as u64) else {
        // SAFETY: the caller's mutex, as the caller promised.
        return unsafe { LOCK.call(mutex) };
    };
    // SAFETY: as above.
    let mut result = unsafe { libc::pthread_mutex_trylock(mutex) };
    if result == libc::EBUSY {
        let asked_at_ns = now_ns();
        // SAFETY: as above.
        result = unsafe { LOCK.call(mutex) };
        line.waits.fetch_add(1, Relaxed);
        line.waited_ns.fetch_add(now_ns().saturating_sub(asked_at_ns), Relaxed);
    }
    line.locks.fetch_add(1, Relaxed);
    line.locked_at_ns.store(now_ns(), Relaxed);
    result
}

/// In place of the system's.
///
/// # Safety
/// As the system's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_unlock(mutex: *mut libc::pthread_mutex_t) -> libc::c_int {
    if let Some(line) = line(mutex.addr() as u64) {
        // Zero where it was locked in another way, or is held a second time.
        let locked_at_ns = line.locked_at_ns.swap(0, Relaxed);
        let held_ns = now_ns().saturating_sub(locked_at_ns);
        if locked_at_ns > 0 && held_ns < INTERRUPTED_NS {
            line.held_ns.fetch_add(held_ns, Relaxed);
        } else if locked_at_ns > 0 {
            line.interruptions.fetch_add(1, Relaxed);
        }
    }
    // SAFETY: the caller's mutex, as the caller promised.
    unsafe { UNLOCK.call(mutex) }
}
