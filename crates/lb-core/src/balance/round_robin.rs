//! Weighted round robin: each server in turn, as often as its weight says.

use super::schedule::{Candidate, Candidates};

/// A retry whose turn falls on a server that failed it draws another by weight instead of moving on, so
/// that it takes no turn from other clients.
pub(super) fn choose<'a>(candidates: &Candidates<'a>, turn: u64, random: u64) -> &'a Candidate {
    let candidate = candidates.at_turn(turn);
    if candidates.allows(candidate) { candidate } else { candidates.draw(random as u32) }
}
