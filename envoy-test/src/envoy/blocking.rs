//! Runs asynchronous code to its end from a plain function.

use std::future::Future;
use std::thread;
use tokio::runtime::Builder;

/// Waits for `future` on a runtime of its own, which ends with it, and with it every connection it opened.
///
/// It runs in a thread of its own, so it may be called inside another runtime too. That one stands still meanwhile:
/// a server that `future` needs must not live on the calling thread.
pub fn wait_for<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    thread::scope(|scope| scope.spawn(|| run(future)).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a runtime its handles").block_on(future)
}
