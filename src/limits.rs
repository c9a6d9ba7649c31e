//! Limits at which something is left out and a request goes on all the same, so that nobody would notice it: each is
//! counted by name. What is refused at a limit is counted as what it is, a refusal or a failed scrape.

/// A limit; where each is, and what happens at it, is in `docs/limits.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// What distinguishes a user from others is longer than what is looked at.
    UserBytes,
    /// A prompt is longer than what is distinguished of it.
    PromptBlocks,
    /// A prompt is followed only in part, or not at all, as too many are in flight for `prefixCache.maxBlocks`.
    PromptsInFlight,
    /// The queue is full.
    QueuedRequests,
    /// A model's sizes are not learnt, as those of too many others are.
    LearntModels,
    /// More models are missing at endpoints than are remembered.
    MissingModels,
    /// A pool's endpoints have printed more adapters than are remembered.
    KnownAdapters,
    /// A metrics page lists as many adapters as are read of it, or more.
    PageAdapters,
    /// Scraping keeps to its budget, so that metrics are older than they may be.
    ScrapeBudget,
    /// Workers have published more prompts than were kept until they were read.
    JournalUnread,
    /// There are more other gateways than are asked.
    Gateways,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 11] = [
        Limit::UserBytes,
        Limit::PromptBlocks,
        Limit::PromptsInFlight,
        Limit::QueuedRequests,
        Limit::LearntModels,
        Limit::MissingModels,
        Limit::KnownAdapters,
        Limit::PageAdapters,
        Limit::ScrapeBudget,
        Limit::JournalUnread,
        Limit::Gateways,
    ];

    /// The name by which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Limit::UserBytes => "user_bytes",
            Limit::PromptBlocks => "prompt_blocks",
            Limit::PromptsInFlight => "prompts_in_flight",
            Limit::QueuedRequests => "queued_requests",
            Limit::LearntModels => "learnt_models",
            Limit::MissingModels => "missing_models",
            Limit::KnownAdapters => "known_adapters",
            Limit::PageAdapters => "page_adapters",
            Limit::ScrapeBudget => "scrape_budget",
            Limit::JournalUnread => "journal_unread",
            Limit::Gateways => "gateways",
        }
    }
}

/// How often limits were reached since that was last asked.
#[derive(Debug, Default)]
pub struct LimitsReached {
    times: [u32; Limit::ALL.len()],
}

impl LimitsReached {
    /// This one was reached, if `reached`.
    pub fn add_if(&mut self, reached: bool, limit: Limit) {
        if !reached {
            return;
        }
        let place = Limit::ALL.iter().position(|one| *one == limit);
        if let Some(times) = place.and_then(|place| self.times.get_mut(place)) {
            *times = times.saturating_add(1);
        }
    }

    /// Takes out those that were reached, and how often.
    pub fn take(&mut self) -> impl Iterator<Item = (Limit, u32)> + use<> {
        let times = std::mem::take(&mut self.times);
        Limit::ALL.into_iter().zip(times).filter(|(_, times)| *times > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn each_is_counted_until_it_is_taken() {
        let mut reached = LimitsReached::default();
        reached.add_if(true, Limit::Gateways);
        reached.add_if(false, Limit::Gateways);
        reached.add_if(true, Limit::UserBytes);
        reached.add_if(true, Limit::UserBytes);
        let taken: Vec<_> = reached.take().collect();
        assert_eq!(taken, [(Limit::UserBytes, 2), (Limit::Gateways, 1)]);
        assert_eq!(reached.take().count(), 0);
    }
}
