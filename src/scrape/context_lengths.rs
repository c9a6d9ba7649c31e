//! When an endpoint is asked for its list of models, which reports how long its context is.
//!
//! Once it has answered a scrape, and then seldom: a context changes only with a server's start. That is noticed by scrapes
//! that had no answer before, and by counters that fall; what neither shows is found out after [`ASK_AGAIN_MS`].

/// How long what an endpoint has reported counts without being asked for again, in milliseconds.
const ASK_AGAIN_MS: u64 = 600_000;

/// How long until an endpoint is asked again that has not reported it, in milliseconds.
const RETRY_MS: u64 = 60_000;

/// What is known of one endpoint's context, and when that is asked for.
#[derive(Debug, Default)]
pub struct ContextLength {
    tokens: Option<u32>,
    asked_ms: Option<u64>,
}

impl ContextLength {
    /// What it has reported last, in tokens.
    pub fn tokens(&self) -> Option<u32> {
        self.tokens
    }

    /// Whether it is to be asked now; then it counts as asked.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        let pause_ms = if self.tokens.is_some() { ASK_AGAIN_MS } else { RETRY_MS };
        let is_due = self.asked_ms.is_none_or(|asked_ms| now_ms.abs_diff(asked_ms) >= pause_ms);
        if is_due {
            self.asked_ms = Some(now_ms);
        }
        is_due
    }

    /// What its list reports; `None` if it gave no list that reports it. What it has reported before counts until then.
    pub fn answered(&mut self, tokens: Option<u32>) {
        self.tokens = tokens.or(self.tokens);
    }

    /// The server has started anew, so that it may have another.
    pub fn restarted(&mut self) {
        self.asked_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn an_endpoint_is_asked_once_seldom_again_and_when_it_has_restarted() {
        let mut context = ContextLength::default();
        assert!(context.is_due(0) && !context.is_due(RETRY_MS - 1) && context.is_due(RETRY_MS));
        context.answered(Some(8_192));
        assert!(!context.is_due(RETRY_MS + ASK_AGAIN_MS - 1));
        assert!(context.is_due(RETRY_MS + ASK_AGAIN_MS));
        context.restarted();
        assert!(context.is_due(RETRY_MS + ASK_AGAIN_MS + 1));
        context.answered(None);
        assert_eq!(context.tokens(), Some(8_192), "no answer takes nothing back");
    }

    #[test]
    fn a_clock_that_goes_back_puts_nothing_off() {
        let mut context = ContextLength::default();
        assert!(context.is_due(10 * ASK_AGAIN_MS) && context.is_due(0));
    }
}
