//! What one endpoint's KV cache holds, as far as can be known from what was sent there; and what it is about to hold.
//!
//! Segments by last use, as servers keep their blocks: of the one unused for longest the last blocks leave first. Segments
//! of one prompt are used from the last to the first, so none ever outlives one it continues; and what was not used as a
//! whole was split, so that what is held is what a list of single blocks would hold. Output and what is behind a prompt's
//! last block take room, too; nothing matches them.
//!
//! Prompts in flight count as held, because a prompt that begins like one that is being computed does not have to
//! be computed twice, and an endpoint drops nothing that is in use. Their segments are in the list only once they were used,
//! and leave no trace if their prompt fails. A segment stays as long as a prompt with it is in flight.

use super::blocks::BlockHash;
use super::last_use::Use;
use super::trees::{NONE, Segment, Trees};
use crate::load::LoadId;

/// What one endpoint holds.
#[derive(Debug)]
pub(super) struct Cache {
    id: LoadId,
    /// The root of its tree.
    root: u32,
    newest: u32,
    oldest: u32,
    /// Blocks in the list.
    cached: usize,
    cached_max: usize,
    /// Tokens in the list.
    tokens: u64,
    tokens_max: u64,
    newest_use: Use,
    /// What the endpoint has shown not to hold, though that may have been the request's own doing.
    doubted: Option<Use>,
}

/// A prompt that an endpoint holds because it is in flight there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The segment with which it ends, or the root.
    place: u32,
    /// How many of its blocks there was room for.
    pub blocks: usize,
}

impl Cache {
    /// One that holds nothing.
    pub fn new(id: LoadId, trees: &mut Trees) -> Cache {
        Cache {
            id,
            root: trees.add_root(),
            newest: NONE,
            oldest: NONE,
            cached: 0,
            cached_max: usize::MAX,
            tokens: 0,
            tokens_max: u64::MAX,
            newest_use: Use::FIRST,
            doubted: None,
        }
    }

    /// The endpoint has left, and nothing is in flight there any more.
    pub fn leave(mut self, trees: &mut Trees) {
        self.clear(trees);
        trees.remove_root(self.root);
    }

    /// How many blocks of a prompt it holds, or is about to; and when the last of them was used, unless it is only about to be
    /// there.
    pub fn matched(&self, trees: &Trees, hashes: &[BlockHash]) -> (usize, Option<Use>) {
        let reached = trees.walk(self.root, hashes);
        (reached.blocks, trees.get(reached.place).and_then(|segment| segment.used))
    }

    /// A prompt was sent there: it holds it, as far as there is room for what is new. To be handed back to
    /// [`Cache::answered`] or [`Cache::dropped`].
    pub fn hold(&mut self, trees: &mut Trees, hashes: &[BlockHash]) -> Held {
        let reached = trees.walk(self.root, hashes);
        let mut place = self.split(trees, reached.place, reached.inside);
        let (_, new) = hashes.split_at_checked(reached.blocks).unwrap_or_default();
        let new = new.get(..trees.room()).unwrap_or(new);
        if let Some(first) = new.first() {
            if place == self.root {
                trees.starts.add(*first, self.id);
            }
            place = trees.add(place, new);
        }
        if let Some(last) = trees.get_mut(place) {
            last.dependents += 1;
        }
        Held { place, blocks: reached.blocks + new.len() }
    }

    /// A prompt in flight was computed there: its blocks, of `block_tokens` each, and so many other tokens behind them.
    pub fn answered(&mut self, trees: &mut Trees, held: Held, block_tokens: u32, other_tokens: u32) {
        self.newest_use = self.newest_use.next();
        let mut place = held.place;
        while place != self.root
            && let Some(segment) = trees.get(place)
        {
            let parent = segment.parent;
            self.use_segment(trees, place, block_tokens);
            place = parent;
        }
        self.add_other(trees, held.place, other_tokens);
        self.release(trees, held.place);
        self.join(trees, held.place);
        self.shrink(trees);
    }

    /// A prompt is no longer in flight, and was not computed as far as is known.
    pub fn dropped(&mut self, trees: &mut Trees, held: Held) {
        self.release(trees, held.place);
        self.remove_unneeded(trees, held.place);
    }

    /// Caches at most so many blocks from now on.
    pub fn set_cached_max(&mut self, trees: &mut Trees, cached_max: usize) {
        self.cached_max = cached_max;
        self.shrink(trees);
    }

    /// Caches at most so many tokens from now on.
    pub fn set_tokens_max(&mut self, trees: &mut Trees, tokens_max: u64) {
        self.tokens_max = tokens_max;
        self.shrink(trees);
    }

    /// The endpoint has shown that it holds what was last used at `last`: so it does what was used later.
    pub fn confirm(&mut self, last: Use) {
        if self.doubted.is_some_and(|doubted| !last.is_after(doubted)) {
            self.doubted = None;
        }
    }

    /// The endpoint has shown that it does not hold what was last used at `last`, nor, then, what was used before. It is
    /// believed when it has shown so twice: some requests (with `prompt_logprobs`, say) are computed without a look at
    /// the cache.
    pub fn record_miss(&mut self, trees: &mut Trees, last: Use) {
        if last.is_after(self.newest_use) {
            // Reported of the cache before this one: the endpoint had left.
            return;
        }
        let doubted = self.doubted.replace(last);
        let Some(before) = doubted else { return };
        let (older, newer) = if last.is_after(before) { (before, last) } else { (last, before) };
        self.doubted = Some(newer);
        self.forget_until(trees, older);
    }

    fn forget_until(&mut self, trees: &mut Trees, last: Use) {
        let is_older = |segment: &Segment| segment.used.is_some_and(|used| !used.is_after(last));
        while trees.get(self.oldest).is_some_and(is_older) {
            self.drop_oldest(trees);
        }
    }

    /// Forgets all but what is in flight.
    pub fn clear(&mut self, trees: &mut Trees) {
        while self.oldest != NONE {
            self.drop_oldest(trees);
        }
    }

    /// Makes the first blocks of a segment one of their own, whose place is returned.
    fn split(&mut self, trees: &mut Trees, place: u32, blocks: usize) -> u32 {
        let Some(all) = trees.get(place).map(|segment| segment.hashes.len()) else { return place };
        if blocks == all {
            return place;
        }
        let start = trees.split(place, blocks);
        let Some(rest) = trees.get_mut(place) else { return start };
        let (used, tokens) = (rest.used, part(rest.tokens, blocks, all));
        rest.tokens -= tokens;
        if let Some(segment) = trees.get_mut(start) {
            (segment.used, segment.tokens) = (used, tokens);
        }
        if used.is_some() {
            self.link(trees, start, place);
        }
        start
    }

    /// Joins the segment with which a prompt ended, of which all was used just now, to the one before if there is no reason to
    /// distinguish them.
    fn join(&mut self, trees: &mut Trees, place: u32) {
        let Some(segment) = trees.get(place).filter(|segment| segment.dependents == 0) else { return };
        let (parent, tokens) = (segment.parent, segment.tokens);
        let Some(before) = trees.get_mut(parent).filter(|before| before.dependents == 1) else { return };
        let Some(tokens) = before.tokens.checked_add(tokens).filter(|_| parent != self.root) else { return };
        before.tokens = tokens;
        self.unlink(trees, place);
        trees.join(place);
    }

    fn shrink(&mut self, trees: &mut Trees) {
        while self.oldest != NONE && (self.cached > self.cached_max || self.tokens > self.tokens_max) {
            self.shrink_oldest(trees);
        }
    }

    /// As many of the oldest segment's last blocks leave the list as there are too many, or all.
    fn shrink_oldest(&mut self, trees: &mut Trees) {
        let Some(oldest) = trees.get_mut(self.oldest) else { return };
        self.tokens -= u64::from(std::mem::take(&mut oldest.other_tokens));
        let (blocks, tokens) = (oldest.blocks(), oldest.tokens);
        let blocks_over = self.cached.saturating_sub(self.cached_max);
        let tokens_over = self.tokens.saturating_sub(self.tokens_max);
        let gone = blocks_over.max(blocks_of(tokens_over, tokens, blocks));
        if gone >= blocks {
            self.drop_oldest(trees);
        } else if gone > 0 && oldest.dependents > 0 {
            // In flight, so all of it stays; but what is behind is not in the list any more.
            self.split(trees, self.oldest, blocks - gone);
            self.drop_oldest(trees);
        } else {
            self.cut_oldest(trees, gone);
        }
    }

    fn cut_oldest(&mut self, trees: &mut Trees, gone: usize) {
        let Some(oldest) = trees.get_mut(self.oldest) else { return };
        let blocks = oldest.blocks();
        let tokens = part(oldest.tokens, gone, blocks);
        oldest.tokens -= tokens;
        self.tokens -= u64::from(tokens);
        self.cached -= gone;
        trees.truncate(self.oldest, blocks - gone);
    }

    /// The oldest segment leaves the list.
    fn drop_oldest(&mut self, trees: &mut Trees) {
        let place = self.oldest;
        self.unlink(trees, place);
        let Some(segment) = trees.get_mut(place) else { return };
        segment.used = None;
        self.cached -= segment.blocks();
        self.tokens -= u64::from(segment.tokens) + u64::from(std::mem::take(&mut segment.other_tokens));
        self.remove_unneeded(trees, place);
    }

    /// The segment becomes the newest of the list.
    fn use_segment(&mut self, trees: &mut Trees, place: u32, block_tokens: u32) {
        let Some(segment) = trees.get_mut(place) else { return };
        if let Some(before) = segment.used.replace(self.newest_use) {
            segment.give_back_room();
            if segment.other_tokens > 0 {
                self.leave_other(trees, place, before);
            }
            self.unlink(trees, place);
        } else {
            segment.tokens = block_tokens.saturating_mul(segment.blocks() as u32);
            self.cached += segment.blocks();
            self.tokens += u64::from(segment.tokens);
        }
        self.link(trees, place, self.newest);
    }

    /// What is behind the last block of a prompt that was used just now takes room, too. It is kept with the segment with
    /// which the prompt ends, as long as that is not used again.
    fn add_other(&mut self, trees: &mut Trees, place: u32, tokens: u32) {
        if place == self.root {
            return self.list_other(trees, tokens, self.newest_use, self.newest);
        }
        if let Some(segment) = trees.get_mut(place) {
            segment.other_tokens = tokens;
            self.tokens += u64::from(tokens);
        }
    }

    /// A segment is used again: what was behind its last block is as old as it was before.
    fn leave_other(&mut self, trees: &mut Trees, place: u32, used: Use) {
        let Some(segment) = trees.get_mut(place) else { return };
        let (tokens, older) = (std::mem::take(&mut segment.other_tokens), segment.older);
        self.tokens -= u64::from(tokens);
        self.list_other(trees, tokens, used, older);
    }

    fn list_other(&mut self, trees: &mut Trees, tokens: u32, used: Use, older: u32) {
        if tokens == 0 || trees.room() == 0 {
            return;
        }
        let place = trees.add_other(tokens, used);
        self.cached += 1;
        self.tokens += u64::from(tokens);
        self.link(trees, place, older);
    }

    fn release(&mut self, trees: &mut Trees, place: u32) {
        if let Some(segment) = trees.get_mut(place) {
            segment.dependents -= 1;
        }
    }

    /// A segment that is neither cached nor in flight any more goes, and so do those before it that were there for its sake.
    fn remove_unneeded(&mut self, trees: &mut Trees, mut place: u32) {
        while place != self.root
            && let Some(segment) = trees.get(place)
            && segment.dependents == 0
            && segment.used.is_none()
        {
            if let Some(first) = segment.hashes.first().filter(|_| segment.parent == self.root) {
                trees.starts.remove(*first, self.id);
            }
            place = trees.remove(place);
        }
    }

    /// Puts a segment into the list as the next newer one of another.
    fn link(&mut self, trees: &mut Trees, place: u32, older: u32) {
        let newer = match trees.get_mut(older) {
            Some(older) => std::mem::replace(&mut older.newer, place),
            None => std::mem::replace(&mut self.oldest, place),
        };
        match trees.get_mut(newer) {
            Some(newer) => newer.older = place,
            None => self.newest = place,
        }
        if let Some(segment) = trees.get_mut(place) {
            (segment.newer, segment.older) = (newer, older);
        }
    }

    fn unlink(&mut self, trees: &mut Trees, place: u32) {
        let Some(segment) = trees.get(place) else { return };
        let (newer, older) = (segment.newer, segment.older);
        match trees.get_mut(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match trees.get_mut(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}

/// The part that so many of all blocks have of their tokens.
fn part(tokens: u32, blocks: usize, all: usize) -> u32 {
    (u64::from(tokens) * blocks as u64 / all.max(1) as u64) as u32
}

/// How many blocks, of so many that have `tokens` together, have `wanted`; all of them if they have fewer.
fn blocks_of(wanted: u64, tokens: u32, blocks: usize) -> usize {
    if wanted >= u64::from(tokens) {
        return if wanted == 0 { 0 } else { blocks };
    }
    (wanted * blocks as u64).div_ceil(u64::from(tokens)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::LoadTracker;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn blocks(hashes: &[u32]) -> Vec<BlockHash> {
        hashes.iter().map(|hash| hash.to_le_bytes()).collect()
    }

    /// One endpoint.
    struct Endpoint {
        trees: Trees,
        cache: Cache,
    }

    impl Endpoint {
        fn new(blocks_max: usize) -> Endpoint {
            let mut trees = Trees::new(1_000, 42);
            let mut cache = Cache::new(LoadTracker::default().id(([10, 0, 0, 1], 8000).into()), &mut trees);
            cache.set_cached_max(&mut trees, blocks_max);
            Endpoint { trees, cache }
        }

        fn hold(&mut self, hashes: &[u32]) -> Held {
            self.cache.hold(&mut self.trees, &blocks(hashes))
        }

        fn drop(&mut self, held: Held) {
            self.cache.dropped(&mut self.trees, held);
        }

        /// A prompt is sent and answered.
        fn answer(&mut self, hashes: &[u32], other_tokens: u32) {
            let held = self.hold(hashes);
            self.cache.answered(&mut self.trees, held, 64, other_tokens);
        }

        /// How much is held of a prompt.
        fn held(&self, hashes: &[u32]) -> usize {
            self.cache.matched(&self.trees, &blocks(hashes)).0
        }

        #[track_caller]
        fn check_held<const N: usize>(&self, prompts: [&[u32]; N], expected: [usize; N]) {
            assert_eq!(prompts.map(|hashes| self.held(hashes)), expected);
        }

        fn last_use(&self, hashes: &[u32]) -> Option<Use> {
            self.cache.matched(&self.trees, &blocks(hashes)).1
        }

        fn record_miss(&mut self, last: Use) {
            self.cache.record_miss(&mut self.trees, last);
        }
    }

    #[test]
    fn the_end_of_what_was_unused_for_longest_leaves_first() {
        let mut endpoint = Endpoint::new(5);
        for hashes in [&[1, 2, 3][..], &[7, 8], &[1, 2, 3], &[9]] {
            endpoint.answer(hashes, 0);
        }
        endpoint.check_held([&[1, 2, 3], &[7, 8], &[9]], [3, 1, 1]);
        endpoint.answer(&[10, 11, 12], 0);
        endpoint.check_held([&[1, 2, 3], &[7, 8], &[9], &[10, 11, 12]], [1, 0, 1, 3]);
        assert_eq!((endpoint.cache.cached, endpoint.trees.blocks()), (5, 5));
    }

    #[test]
    fn of_a_segment_only_what_was_used_stays_longer() {
        let mut endpoint = Endpoint::new(6);
        endpoint.answer(&[1, 2, 3, 4], 0);
        endpoint.answer(&[8], 0);
        endpoint.answer(&[1, 2], 0);
        endpoint.answer(&[10, 11], 0);
        endpoint.check_held([&[1, 2, 3, 4], &[8], &[10, 11]], [3, 1, 2]);
        endpoint.answer(&[12, 13], 0);
        endpoint.check_held([&[1, 2, 3, 4], &[8], &[10, 11], &[12, 13]], [2, 0, 2, 2]);
    }

    #[test]
    fn output_takes_room_and_leaves_before_its_prompt() {
        let mut endpoint = Endpoint::new(100);
        endpoint.cache.set_tokens_max(&mut endpoint.trees, 640);
        endpoint.answer(&[1, 2, 3], 448);
        endpoint.answer(&[9], 0);
        endpoint.check_held([&[1, 2, 3], &[9]], [3, 1]);
        endpoint.answer(&[10], 400);
        endpoint.check_held([&[1, 2, 3], &[9], &[10]], [1, 1, 1]);
    }

    #[test]
    fn a_prompt_larger_than_the_cache_keeps_its_start() {
        let mut endpoint = Endpoint::new(3);
        endpoint.answer(&[1, 2, 3, 4, 5], 9);
        endpoint.check_held([&[1, 2, 3, 4, 5]], [3]);
        assert_eq!(endpoint.cache.cached, 3);
    }

    #[test]
    fn a_full_cache_of_any_size_holds_exactly_what_was_used_last() {
        for blocks_max in 1..130 {
            let mut endpoint = Endpoint::new(blocks_max as usize);
            for hash in 1..=3 * blocks_max {
                endpoint.answer(&[hash], 0);
                let first_held = hash.saturating_sub(blocks_max) + 1;
                let wrong =
                    (1..=hash).find(|known| endpoint.held(&[*known]) != usize::from(*known >= first_held));
                assert_eq!(wrong, None, "of {blocks_max}, after {hash}");
            }
        }
    }

    #[test]
    fn what_an_endpoint_no_longer_holds_goes_with_all_that_is_older() {
        let mut endpoint = Endpoint::new(100);
        let prompts: [&[u32]; 3] = [&[1, 2], &[3, 4], &[5, 6]];
        prompts.iter().for_each(|hashes| endpoint.answer(hashes, 0));
        let [first, second, third] = prompts.map(|hashes| endpoint.last_use(hashes).unwrap());
        endpoint.record_miss(second);
        endpoint.check_held(prompts, [2, 2, 2]);
        endpoint.record_miss(third);
        endpoint.check_held(prompts, [0, 0, 2]);
        assert_eq!(endpoint.last_use(&[3, 4]), None);
        endpoint.record_miss(first);
        endpoint.check_held(prompts, [0, 0, 2]);
        endpoint.record_miss(third);
        endpoint.check_held(prompts, [0, 0, 0]);
    }

    #[test]
    fn what_is_found_in_between_takes_a_doubt_back() {
        let mut endpoint = Endpoint::new(100);
        let prompts: [&[u32]; 2] = [&[1, 2], &[3, 4]];
        prompts.iter().for_each(|hashes| endpoint.answer(hashes, 0));
        let [first, second] = prompts.map(|hashes| endpoint.last_use(hashes).unwrap());
        for (found, left) in [(first, [2, 2]), (second, [0, 2])] {
            endpoint.record_miss(first);
            endpoint.cache.confirm(found);
            endpoint.record_miss(second);
            endpoint.check_held(prompts, left);
            endpoint.cache.confirm(first);
        }
    }

    #[test]
    fn what_another_cache_was_matched_with_says_nothing() {
        let (mut before, mut endpoint) = (Endpoint::new(100), Endpoint::new(100));
        for _ in 0..3 {
            before.answer(&[1], 0);
        }
        endpoint.answer(&[1], 0);
        for _ in 0..2 {
            endpoint.record_miss(before.last_use(&[1]).unwrap());
        }
        endpoint.check_held([&[1]], [1]);
    }

    #[test]
    fn a_prompt_in_flight_is_held_until_it_fails_and_leaves_what_others_have() {
        let mut endpoint = Endpoint::new(100);
        endpoint.answer(&[1, 2], 0);
        let one = endpoint.hold(&[1, 2, 3]);
        let other = endpoint.hold(&[1, 2, 3, 4]);
        assert_eq!((endpoint.cache.cached, endpoint.trees.blocks()), (2, 4));
        endpoint.drop(other);
        endpoint.check_held([&[1, 2, 3, 4]], [3]);
        endpoint.drop(one);
        endpoint.check_held([&[1, 2, 3, 4]], [2]);
        assert_eq!(endpoint.trees.blocks(), 2);
    }

    #[test]
    fn what_is_in_flight_outlasts_its_leaving_the_list() {
        let mut endpoint = Endpoint::new(2);
        endpoint.answer(&[1, 2], 0);
        let held = endpoint.hold(&[1, 2]);
        endpoint.answer(&[8], 0);
        endpoint.check_held([&[1, 2], &[8]], [2, 1]);
        assert!(endpoint.last_use(&[1]).is_some() && endpoint.last_use(&[1, 2]).is_none());
        endpoint.answer(&[8, 9], 0);
        endpoint.check_held([&[1, 2], &[8, 9]], [2, 2]);
        assert_eq!(endpoint.last_use(&[1]), None);
        endpoint.cache.clear(&mut endpoint.trees);
        endpoint.check_held([&[1, 2], &[8, 9]], [2, 0]);
        endpoint.cache.answered(&mut endpoint.trees, held, 64, 0);
        endpoint.check_held([&[1, 2]], [2]);
        assert_eq!((endpoint.cache.cached, endpoint.trees.blocks()), (2, 2));
    }

    #[test]
    fn a_conversation_stays_one_segment_and_takes_no_more_memory_than_its_blocks() {
        let mut endpoint = Endpoint::new(1_000);
        let turns: Vec<u32> = (1..=500).collect();
        (1..=100).for_each(|turn| endpoint.answer(&turns[..5 * turn], 0));
        endpoint.check_held([&turns], [500]);
        let bytes = endpoint.trees.allocated_bytes();
        assert!(bytes <= 4 * 500 + 1_500, "{bytes}");
    }

    #[test]
    fn places_of_what_is_gone_are_taken_again() {
        let mut endpoint = Endpoint::new(4);
        for hash in 1..1_000 {
            let held = endpoint.hold(&[hash, hash + 1_000]);
            endpoint.drop(held);
            endpoint.answer(&[hash], 7);
        }
        assert_eq!(endpoint.trees.blocks(), 4);
        assert!(endpoint.trees.allocated_bytes() <= 2_000, "{}", endpoint.trees.allocated_bytes());
    }
}
