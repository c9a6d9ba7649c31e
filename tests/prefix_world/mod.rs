//! What a prefix index should know, found the slow way: every block that was ever there and not forgotten, in a set. For
//! property tests and fuzz targets.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use inference_picker::load::{LoadId, LoadTracker};
use inference_picker::prefix::{BLOCK_BYTES, BlockHash, BlockHasher, PrefixIndex, PromptBlocks, PromptKey};

pub fn address(endpoint: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, endpoint as u8], 8000))
}

/// A prompt whose blocks are these letters.
pub fn prompt(letters: &[u8]) -> PromptBlocks {
    let mut hasher = BlockHasher::new("model", b"");
    letters.iter().for_each(|letter| hasher.push(&[*letter; BLOCK_BYTES]));
    hasher.finish()
}

/// Workers that send prompts, in turn.
pub const WORKERS: u64 = 2;

/// Something that happens to a prompt at one of three endpoints.
#[derive(Debug, Clone)]
pub enum Step {
    Sent {
        endpoint: usize,
        letters: Vec<u8>,
    },
    Answered {
        which: usize,
    },
    Dropped {
        which: usize,
    },
    /// An answer reports whether the endpoint held what such a prompt was matched with there.
    Reported {
        endpoint: usize,
        letters: Vec<u8>,
        was_held: bool,
    },
    Restarted {
        endpoint: usize,
    },
    /// One of the two workers that send prompts is gone.
    Lost {
        worker: u64,
    },
    /// It leaves the pool, and comes back.
    Replaced {
        endpoint: usize,
    },
}

/// The index, and beside it every block that was ever there and not forgotten.
pub struct World {
    pub index: PrefixIndex,
    ids: Vec<LoadId>,
    in_flight: Vec<(PromptKey, usize, PromptBlocks)>,
    /// With the number of the last answer to a prompt with it.
    answered: HashMap<(usize, BlockHash), u64>,
    /// By endpoint, the number of what it has reported that it does not hold.
    doubted: HashMap<usize, u64>,
    /// Whether the index has room for all blocks, so that it never forgets one by itself.
    has_room: bool,
    numbers: u64,
}

/// More blocks than any world has.
pub const ENOUGH_BLOCKS: usize = 100_000;

impl World {
    pub fn new(blocks_max: usize) -> World {
        let mut loads = LoadTracker::default();
        let ids: Vec<LoadId> = (0..3).map(|endpoint| loads.id(address(endpoint))).collect();
        let mut index = PrefixIndex::new(blocks_max, 42);
        index.follow(ids.iter().copied());
        World {
            index,
            ids,
            in_flight: Vec::new(),
            answered: HashMap::new(),
            doubted: HashMap::new(),
            has_room: blocks_max >= ENOUGH_BLOCKS,
            numbers: 0,
        }
    }

    fn take(&mut self, which: usize) -> Option<(PromptKey, usize, PromptBlocks)> {
        let which = which % self.in_flight.len().max(1);
        (which < self.in_flight.len()).then(|| self.in_flight.swap_remove(which))
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Sent { endpoint, letters } => {
                self.numbers += 1;
                let key = PromptKey { worker: self.numbers % WORKERS, number: self.numbers };
                let blocks = prompt(&letters);
                self.index.sent(key, self.ids[endpoint], &blocks.hashes, 64, 0);
                self.in_flight.push((key, endpoint, blocks));
            }
            Step::Answered { which } => {
                let Some((key, endpoint, blocks)) = self.take(which) else { return };
                self.index.answered(key, 0);
                self.numbers += 1;
                let number = self.numbers;
                self.answered.extend(blocks.hashes.iter().map(|hash| ((endpoint, *hash), number)));
            }
            Step::Reported { endpoint, letters, was_held } => {
                let (id, blocks) = (self.ids[endpoint], prompt(&letters));
                let last = self.naive_match(endpoint, &blocks).checked_sub(1).map(|last| blocks.hashes[last]);
                let matched = self.index.matched(id, &blocks);
                self.index.correct(id, matched, was_held);
                let number = last.and_then(|hash| self.answered.get(&(endpoint, hash)).copied());
                if let Some(number) = number.filter(|_| self.has_room) {
                    self.reported(endpoint, number, was_held);
                }
            }
            Step::Dropped { which } => {
                let Some((key, ..)) = self.take(which) else { return };
                self.index.dropped(key);
            }
            Step::Restarted { endpoint } => {
                self.index.forget(self.ids[endpoint]);
                self.answered.retain(|(known, _), _| *known != endpoint);
            }
            Step::Lost { worker } => {
                self.index.drop_prompts_of(worker);
                self.in_flight.retain(|(key, ..)| key.worker != worker);
            }
            Step::Replaced { endpoint } => {
                let others = self.ids.iter().copied().enumerate().filter(|(place, _)| *place != endpoint);
                self.index.follow(others.map(|(_, id)| id));
                self.index.follow(self.ids.iter().copied());
                self.in_flight.iter_mut().filter(|(_, at, _)| *at == endpoint).for_each(|(.., blocks)| {
                    *blocks = PromptBlocks::default();
                });
                self.answered.retain(|(known, _), _| *known != endpoint);
                self.doubted.remove(&endpoint);
            }
        }
    }

    fn reported(&mut self, endpoint: usize, number: u64, was_held: bool) {
        let doubted = self.doubted.get(&endpoint).copied();
        if was_held {
            self.doubted.retain(|known, doubted| *known != endpoint || number > *doubted);
        } else {
            self.doubted.insert(endpoint, doubted.map_or(number, |doubted| doubted.max(number)));
            let forgotten = doubted.map_or(0, |doubted| doubted.min(number));
            self.answered.retain(|(known, _), used| *known != endpoint || *used > forgotten);
        }
    }

    /// Blocks at all endpoints, in flight or cached.
    pub fn naive_len(&self) -> usize {
        let in_flight =
            self.in_flight.iter().flat_map(|(_, at, blocks)| blocks.hashes.iter().map(|hash| (*at, *hash)));
        in_flight.chain(self.answered.keys().copied()).collect::<HashSet<_>>().len()
    }

    /// The longest start that is at an endpoint, by looking at one block after the other.
    pub fn naive_match(&self, endpoint: usize, blocks: &PromptBlocks) -> usize {
        let flying = |hash: &BlockHash| {
            self.in_flight.iter().any(|(_, at, blocks)| *at == endpoint && blocks.hashes.contains(hash))
        };
        blocks
            .hashes
            .iter()
            .take_while(|hash| flying(hash) || self.answered.contains_key(&(endpoint, **hash)))
            .count()
    }

    pub fn matched(&self, endpoint: usize, blocks: &PromptBlocks) -> usize {
        self.index.matched(self.ids[endpoint], blocks).blocks
    }

    /// The endpoints that hold something of a prompt, and how much, by asking for each.
    pub fn matches(&self, blocks: &PromptBlocks) -> Vec<(usize, usize)> {
        let matches = (0..self.ids.len()).map(|endpoint| (endpoint, self.matched(endpoint, blocks)));
        matches.filter(|(_, matched_blocks)| *matched_blocks > 0).collect()
    }

    /// The same, as the index finds them all at once.
    pub fn holders(&self, blocks: &PromptBlocks) -> Vec<(usize, usize)> {
        let place = |id: LoadId| self.ids.iter().position(|known| *known == id).unwrap();
        let mut holders: Vec<_> =
            self.index.holders(blocks).map(|(id, matched_blocks)| (place(id), matched_blocks)).collect();
        holders.sort_unstable();
        holders
    }
}

/// Tokens of each block in a [`Tight`] world.
const BLOCK_TOKENS: u32 = 64;

/// An index whose one endpoint has little room, and beside it what should be there as a list of single blocks: the one that
/// was unused for longest comes first, and is the next to leave. Output is a block that nothing matches.
pub struct Tight {
    index: PrefixIndex,
    id: LoadId,
    listed: Vec<(Option<BlockHash>, u32)>,
    tokens_max: u64,
    in_flight: Vec<(PromptKey, PromptBlocks)>,
    numbers: u64,
}

impl Tight {
    pub fn new(tokens_max: u64) -> Tight {
        let id = LoadTracker::default().id(address(0));
        let mut index = PrefixIndex::new(ENOUGH_BLOCKS, 42);
        index.follow([id].into_iter());
        index.set_capacity(id, tokens_max);
        Tight { index, id, listed: Vec::new(), tokens_max, in_flight: Vec::new(), numbers: 0 }
    }

    /// What happens at whichever endpoint happens at this one.
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Sent { letters, .. } => {
                self.numbers += 1;
                let (key, blocks) = (PromptKey { worker: 0, number: self.numbers }, prompt(&letters));
                self.index.sent(key, self.id, &blocks.hashes, BLOCK_TOKENS, 0);
                self.in_flight.push((key, blocks));
            }
            Step::Answered { which } => {
                let Some((key, blocks)) = self.take(which) else { return };
                let other_tokens = self.numbers as u32 * 37 % 300;
                self.index.answered(key, other_tokens);
                self.answer(&blocks, other_tokens);
            }
            Step::Dropped { which } => {
                let Some((key, _)) = self.take(which) else { return };
                self.index.dropped(key);
            }
            Step::Restarted { .. } => {
                self.index.forget(self.id);
                self.listed.clear();
            }
            Step::Reported { .. } | Step::Lost { .. } | Step::Replaced { .. } => {}
        }
    }

    fn answer(&mut self, blocks: &PromptBlocks, other_tokens: u32) {
        self.listed.retain(|(hash, _)| hash.is_none_or(|hash| !blocks.hashes.contains(&hash)));
        self.listed.extend((other_tokens > 0).then_some((None, other_tokens)));
        self.listed.extend(blocks.hashes.iter().rev().map(|hash| (Some(*hash), BLOCK_TOKENS)));
        while self.listed.iter().map(|(_, tokens)| u64::from(*tokens)).sum::<u64>() > self.tokens_max {
            self.listed.remove(0);
        }
    }

    fn take(&mut self, which: usize) -> Option<(PromptKey, PromptBlocks)> {
        let which = which % self.in_flight.len().max(1);
        (which < self.in_flight.len()).then(|| self.in_flight.swap_remove(which))
    }

    pub fn matched(&self, blocks: &PromptBlocks) -> usize {
        self.index.matched(self.id, blocks).blocks
    }

    pub fn naive_match(&self, blocks: &PromptBlocks) -> usize {
        let is_listed = |hash: &BlockHash| self.listed.iter().any(|(listed, _)| *listed == Some(*hash));
        let is_flying =
            |hash: &BlockHash| self.in_flight.iter().any(|(_, blocks)| blocks.hashes.contains(hash));
        blocks.hashes.iter().take_while(|hash| is_listed(hash) || is_flying(hash)).count()
    }
}
