//! Models that endpoints were found not to have.
//!
//! ```text
//! pause = FIRST_PAUSE_MS × 2^(times in a row − 1), at most MAX_PAUSE_MS
//! ```
//!
//! An endpoint that answers that it does not have a model is not asked for it during the pause, and then by one request,
//! which begins the pause anew until it is answered. An answer that it has it after all ends this at once, and so does a
//! restart of its server.
//!
//! Workers publish to each other what they note. Of what is said of the same model at the same endpoint, what was noted last holds;
//! that a model is there again is noted too, so that what others said before does not come back.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AdapterId, EndpointKey, LoadId, is_published};

/// How long an endpoint that does not have a model is not asked for it, in milliseconds; doubled each time it says so again.
const FIRST_PAUSE_MS: u64 = 1_000;
/// The longest it is not asked, in milliseconds. Loading an adapter is seldom more urgent, and a restart is seen.
const MAX_PAUSE_MS: u64 = 30_000;
/// Models at endpoints that are remembered. Clients can name as many models that nobody has as they like.
pub(super) const MAX_MISSING_MODELS: usize = 1_024;

/// What was last noted of a model at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Missing {
    /// When it was noted, in milliseconds of the host's clock.
    pub noted_ms: u64,
    /// How often in a row it was found missing; 0: it is there.
    pub times: u8,
}

/// What was noted of a model at an endpoint, as workers publish to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingNote {
    /// Where.
    pub endpoint: EndpointKey,
    /// The model, by the id that an adapter of this name has.
    pub model: AdapterId,
    /// What was noted.
    pub missing: Missing,
}

impl MissingNote {
    /// Whether it is still to be published to others.
    pub fn is_published(&self, now_ms: u64) -> bool {
        is_published(self.missing.noted_ms, now_ms)
    }
}

impl Missing {
    /// Until when it is not asked for there.
    fn until_ms(self) -> u64 {
        let Some(doublings) = self.times.checked_sub(1) else { return self.noted_ms };
        let pause_ms = FIRST_PAUSE_MS.saturating_mul(1 << doublings.min(10)).min(MAX_PAUSE_MS);
        self.noted_ms.saturating_add(pause_ms)
    }

    fn is_known(self) -> bool {
        self.times > 0
    }

    /// Whether the next time would be as the first.
    fn is_forgotten(self, now_ms: u64) -> bool {
        now_ms >= self.until_ms().saturating_add(MAX_PAUSE_MS)
    }

    /// Whether it was noted by a clock that has gone back since, or by nobody.
    fn is_to_come(self, now_ms: u64) -> bool {
        self.noted_ms > now_ms
    }
}

#[derive(Debug)]
struct Noted {
    missing: Missing,
    /// Whether this worker has noted it itself.
    own: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct MissingModels {
    noted: BTreeMap<(AdapterId, LoadId), Noted>,
}

impl MissingModels {
    /// Where the model is not to be asked for now.
    pub fn lacking(&self, model: AdapterId, now_ms: u64) -> impl Iterator<Item = LoadId> {
        let of_model = self.noted.range((model, LoadId(0))..=(model, LoadId(usize::MAX)));
        let lacks =
            move |noted: &Noted| !noted.missing.is_to_come(now_ms) && now_ms < noted.missing.until_ms();
        of_model.filter(move |(_, noted)| lacks(noted)).map(|((_, load_id), _)| *load_id)
    }

    /// Whether the endpoint has said that it does not have the model, and not otherwise since.
    pub fn is_known(&self, id: LoadId, model: AdapterId) -> bool {
        self.noted.get(&(model, id)).is_some_and(|noted| noted.missing.is_known())
    }

    /// A request for the model is sent there: until it is answered, no other is.
    pub fn asked(&mut self, id: LoadId, model: AdapterId, now_ms: u64) {
        if let Some(noted) = self.noted.get_mut(&(model, id)).filter(|noted| noted.missing.is_known()) {
            *noted = Noted { missing: Missing { noted_ms: now_ms, ..noted.missing }, own: true };
        }
    }

    /// The endpoint has answered a request that was sent at `sent_ms` that it does not have the model. `false` if there is no
    /// room to remember it without forgetting another.
    pub fn missing(&mut self, id: LoadId, model: AdapterId, sent_ms: u64, now_ms: u64) -> bool {
        let before = self.noted.get(&(model, id)).map(|noted| noted.missing);
        let before = before.filter(|before| !before.is_forgotten(now_ms) && !before.is_to_come(now_ms));
        // What was sent before this was noted shows nothing new.
        if before.is_some_and(|before| before.is_known() && sent_ms < before.noted_ms) {
            return true;
        }
        let times = before.map_or(0, |before| before.times).saturating_add(1);
        self.note(id, model, Noted { missing: Missing { noted_ms: now_ms, times }, own: true }, now_ms)
    }

    /// The endpoint has answered a request for the model.
    pub fn served(&mut self, id: LoadId, model: AdapterId, now_ms: u64) {
        if let Some(noted) = self.noted.get_mut(&(model, id)).filter(|noted| noted.missing.is_known()) {
            *noted = Noted { missing: Missing { noted_ms: now_ms, times: 0 }, own: true };
        }
    }

    /// The endpoint's server has started anew, as was seen at `seen_ms`: what it has is not known.
    pub fn restarted(&mut self, id: LoadId, seen_ms: u64) {
        for ((_, of), noted) in &mut self.noted {
            if *of == id && noted.missing.noted_ms <= seen_ms {
                noted.missing = Missing { noted_ms: seen_ms, times: 0 };
            }
        }
    }

    /// Another worker has noted this; whether the model is missing there and that is news.
    pub fn receive(&mut self, id: LoadId, model: AdapterId, missing: Missing, now_ms: u64) -> bool {
        let before = self.noted.get(&(model, id)).map(|noted| noted.missing);
        let is_news = before.is_none_or(|before| missing > before || before.is_to_come(now_ms));
        if !is_news || missing.is_to_come(now_ms) || missing.is_forgotten(now_ms) {
            return false;
        }
        self.note(id, model, Noted { missing, own: false }, now_ms);
        missing.is_known()
    }

    /// What is to be published to others.
    pub fn published(&self, now_ms: u64) -> impl Iterator<Item = (LoadId, AdapterId, Missing)> {
        let is_own = move |noted: &Noted| noted.own && is_published(noted.missing.noted_ms, now_ms);
        let published = self.noted.iter().filter(move |(_, noted)| is_own(noted));
        published.map(|((model, load_id), noted)| (*load_id, *model, noted.missing))
    }

    /// Forgets what is of no use any more: of endpoints that are gone, and what was noted long ago.
    pub fn keep_only(&mut self, known: impl Fn(LoadId) -> bool) {
        self.noted.retain(|(_, load_id), _| known(*load_id));
    }

    /// Where there is no room, what ends first is forgotten: who invents models does so once each.
    fn note(&mut self, id: LoadId, model: AdapterId, noted: Noted, now_ms: u64) -> bool {
        let mut is_free = true;
        if self.noted.len() >= MAX_MISSING_MODELS && !self.noted.contains_key(&(model, id)) {
            self.noted.retain(|_, noted| !noted.missing.is_forgotten(now_ms));
            let first =
                self.noted.iter().min_by_key(|(_, noted)| noted.missing.until_ms()).map(|(key, _)| *key);
            if let Some(first) = first.filter(|_| self.noted.len() >= MAX_MISSING_MODELS) {
                self.noted.remove(&first);
                is_free = false;
            }
        }
        self.noted.insert((model, id), noted);
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const HERE: LoadId = LoadId(3);
    const MODEL: AdapterId = AdapterId(7);

    fn is_asked(models: &MissingModels, now_ms: u64) -> bool {
        models.lacking(MODEL, now_ms).count() == 0
    }

    #[test]
    fn it_is_not_asked_for_a_while_that_doubles_up_to_half_a_minute_and_then_by_one_request() {
        let mut models = MissingModels::default();
        let mut now_ms = 5_000;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert!(is_asked(&models, now_ms));
            models.asked(HERE, MODEL, now_ms);
            models.missing(HERE, MODEL, now_ms, now_ms + 3);
            now_ms += 3;
            assert!(
                !is_asked(&models, now_ms + pause_ms - 1) && is_asked(&models, now_ms + pause_ms),
                "{pause_ms}"
            );
            now_ms += pause_ms;
        }
        models.asked(HERE, MODEL, now_ms);
        assert!(!is_asked(&models, now_ms), "one at a time");
        assert_eq!(models.lacking(AdapterId(8), now_ms).count(), 0, "other models are asked for");
        assert!(!is_asked(&models, now_ms + 10) && models.is_known(HERE, MODEL));
    }

    #[test]
    fn requests_that_were_under_way_count_once() {
        let mut models = MissingModels::default();
        for (sent_ms, now_ms) in [(100, 200), (110, 201), (120, 202), (199, 203)] {
            models.missing(HERE, MODEL, sent_ms, now_ms);
        }
        assert!(!is_asked(&models, 1_199) && is_asked(&models, 1_200));
    }

    #[test]
    fn a_model_that_is_there_and_a_server_that_starts_anew_are_asked_at_once() {
        let mut models = MissingModels::default();
        models.missing(HERE, MODEL, 100, 100);
        models.served(HERE, MODEL, 150);
        assert!(is_asked(&models, 150) && !models.is_known(HERE, MODEL));
        models.missing(HERE, MODEL, 200, 200);
        models.restarted(HERE, 190);
        assert!(!is_asked(&models, 210), "that was before");
        models.restarted(HERE, 205);
        assert!(is_asked(&models, 210));
        models.missing(HERE, MODEL, 300, 300);
        assert!(is_asked(&models, 1_300), "it begins at the first pause");
    }

    #[test]
    fn of_what_workers_publish_the_last_holds() {
        let (mut one, mut other) = (MissingModels::default(), MissingModels::default());
        let publish = |from: &MissingModels, to: &mut MissingModels, now_ms: u64| {
            from.published(now_ms)
                .filter(|(id, model, missing)| to.receive(*id, *model, *missing, now_ms))
                .count()
        };
        one.missing(HERE, MODEL, 100, 100);
        assert_eq!((publish(&one, &mut other, 110), publish(&one, &mut other, 110)), (1, 0));
        assert!(!is_asked(&other, 110));
        assert_eq!(other.published(110).count(), 0, "what was received is not published again");
        other.served(HERE, MODEL, 120);
        publish(&one, &mut other, 130);
        assert!(is_asked(&other, 130), "what was said before does not come back");
        publish(&other, &mut one, 130);
        assert!(is_asked(&one, 130));
        assert_eq!(publish(&other, &mut one, 5_000), 0, "nor is old news published");
        let to_come = Missing { noted_ms: 10_000, times: 200 };
        assert!(!one.receive(HERE, MODEL, to_come, 5_000), "nor is what nobody can know yet");
    }

    #[test]
    fn who_invents_models_takes_no_more_room_and_displaces_none_that_is_missing_for_long() {
        let mut models = MissingModels::default();
        for now_ms in [0, 2_000, 5_000] {
            models.missing(HERE, MODEL, now_ms, now_ms);
        }
        let invented = (0..3 * MAX_MISSING_MODELS).map(|number| AdapterId(100 + number as u64));
        let fitted = invented.filter(|model| models.missing(HERE, *model, 5_001, 5_001)).count();
        assert_eq!((fitted, models.noted.len()), (MAX_MISSING_MODELS - 1, MAX_MISSING_MODELS));
        assert!(!is_asked(&models, 5_002));
        models.missing(HERE, AdapterId(1), 200_000, 200_000);
        assert_eq!(models.noted.len(), 1, "and what was long ago leaves first");
        models.keep_only(|load_id| load_id != HERE);
        assert!(models.noted.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_keeps_no_model_away() {
        let mut models = MissingModels::default();
        models.missing(HERE, MODEL, 9_000_000, 9_000_000);
        assert!(is_asked(&models, 100));
        models.missing(HERE, MODEL, 100, 100);
        assert!(!is_asked(&models, 200) && is_asked(&models, 1_100));
    }
}
