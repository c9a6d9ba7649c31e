//! What gateways in front of the same pools publish to each other, so that they pick as one.
//!
//! Each gateway answers the others' questions with a [`Page`] of its [ledger](crate::ledger): what its workers have in
//! flight, and what has happened to their prompts since. [`Asking`] says when to ask whom, and what of the answers goes into
//! this gateway's ledger, where its workers read it as they read each other's.
//!
//! Contract: no host calls. What comes from another gateway is read as bytes from a stranger: in bounded memory, and
//! without effect where it is not a page. Nothing that was received is published again, so gateways may ask each other, and
//! themselves, in any order.
//!
//! It deliberately does not agree on anything: two gateways that learn of each other late may pick the same endpoint.

mod asking;
mod page;
mod question;

pub use asking::{Asking, News, Outcome};
pub use page::{MAX_PAGE_BYTES, Page};
pub use question::{PATH, Question};

/// Gateways that are asked: more than stand in front of one pool, and each is asked fifty times a second.
pub const MAX_GATEWAYS: usize = 64;
