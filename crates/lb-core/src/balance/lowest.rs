//! The strategies that take the server with the lowest score: least connections and least time.

use super::schedule::{Candidate, Candidates};

/// Least connections: requests in flight per weight.
pub(super) fn connections(candidate: &Candidate, in_flight: u32) -> f64 {
    f64::from(in_flight) / candidate.weight as f64
}

/// Traefik's least time: mean time to the first byte, times the requests in flight with this one, per
/// weight. A server without a sample scores 0 and so gets one soon.
pub(super) fn time(candidate: &Candidate, in_flight: u32) -> f64 {
    candidate.server.mean_time() * (1.0 + f64::from(in_flight)) / candidate.weight as f64
}

struct Best<'a> {
    candidate: &'a Candidate,
    in_flight: u32,
    score: f64,
    last_turn: u64,
}

/// Chooses and counts the request in one step: it is counted only if the chosen server still has the load
/// by which it was chosen, so workers that choose at the same time do not all take the same server.
///
/// A server in slow start is considered only when it is its turn, so that being idle brings it no more than its
/// share.
///
/// Ties: when all are equal they take turns by weight; otherwise the one that waited longest is taken.
///
/// # Errors
/// The chosen one, when it is full.
pub(super) fn begin<'a>(
    candidates: &Candidates<'a>,
    turn: u64,
    score: impl Fn(&Candidate, u32) -> f64,
) -> Result<&'a Candidate, &'a Candidate> {
    let rate = |candidate: &'a Candidate| {
        let in_flight = candidate.server.in_flight();
        let (score, last_turn) = (score(candidate, in_flight), candidate.server.last_turn());
        Best { candidate, in_flight, score, last_turn }
    };
    loop {
        let whose_turn = rate(candidates.at_turn(turn));
        let mut best: Option<Best<'a>> = None;
        let mut all_tied = candidates.is_complete();
        let spared =
            |candidate: &Candidate| candidate.rising && candidate.index != whose_turn.candidate.index;
        for rated in candidates.iter().filter(|candidate| !spared(candidate)).map(rate) {
            all_tied &= rated.score == whose_turn.score;
            let better = |best: &Best| (rated.score, rated.last_turn) < (best.score, best.last_turn);
            if best.as_ref().is_none_or(better) {
                best = Some(rated);
            }
        }
        let chosen = match best {
            Some(best) if !all_tied => best,
            // All others were tried, and it is the turn of one of them.
            None => candidates.iter().map(rate).next().unwrap_or(whose_turn),
            Some(_) => whose_turn,
        };
        if chosen.in_flight >= chosen.candidate.most {
            return Err(chosen.candidate);
        }
        // Counted from 1: 0 is a server that was never chosen.
        if chosen.candidate.server.begin_if(chosen.in_flight, turn + 1) {
            return Ok(chosen.candidate);
        }
    }
}
