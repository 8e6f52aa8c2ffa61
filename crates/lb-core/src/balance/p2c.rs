//! Power of two choices (Mitzenmacher, 2001): the less loaded of two servers drawn at random.

use super::schedule::{Candidate, Candidates, scale};

/// As in Traefik weights do not matter, unless they are 0 or the server is degraded: then it is drawn
/// first less often, and its load counts for more.
pub(super) fn choose<'a>(candidates: &Candidates<'a>, random: u64) -> &'a Candidate {
    let first = candidates.draw(random as u32);
    let Some(second) = another(candidates, first, (random >> 32) as u32) else {
        return first;
    };
    if second.rising {
        return first; // it was not its turn
    }
    let load = |candidate: &Candidate| f64::from(candidate.server.in_flight()) / candidate.weight as f64;
    if load(second) < load(first) { second } else { first }
}

/// One of the others, all equally likely.
fn another<'a>(candidates: &Candidates<'a>, first: &Candidate, random: u32) -> Option<&'a Candidate> {
    let others = || candidates.iter().filter(|candidate| candidate.index != first.index);
    if !candidates.is_complete() {
        let nth = scale(random, others().count() as u64);
        return others().nth(nth as usize);
    }
    // Candidates are in the order of their indices: the draw skips over `first` without counting.
    let position = scale(random, candidates.total() as u64 - 1) as usize;
    let shifted = if candidates.at(position).index >= first.index { position + 1 } else { position };
    (candidates.total() > 1).then(|| candidates.at(shifted))
}
