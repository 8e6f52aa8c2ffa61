//! The servers that new clients may get, and the order in which turns go to them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::warmth::WHOLE;
use super::{Member, Server, Settings, Strategy};
use crate::health::{AdminState, Status};

/// Turns in one cycle at most (chosen: 32 KiB, built in well under a millisecond).
///
/// Weights that would need more after division by their greatest common divisor are scaled down to it:
/// each server then gets the rounded share of `MAX_SLOTS` turns, at least one. Up to here shares are exact.
pub const MAX_SLOTS: usize = 8192;

/// A snapshot of the eligible servers.
#[derive(Debug)]
pub(super) struct Schedule {
    generation: u64,
    /// Too few servers are eligible: all that the operator wants are in, whatever their health.
    panics: bool,
    regular: Group,
    /// Degraded servers that keep nothing of their weight: for when no regular one is left.
    reserve: Group,
}

#[derive(Debug)]
struct Group {
    candidates: Box<[Candidate]>,
    /// Positions in `candidates`: whose turn it is. Empty for strategies without turns.
    turns: Box<[u32]>,
    /// Bytes with which the URLs of all candidates begin.
    common_prefix: usize,
    equal_weights: bool,
}

/// A server that may be chosen.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) server: Arc<Server>,
    /// The first member with its URL.
    pub(super) index: usize,
    /// Reduced weight, above 0; only ratios between candidates have a meaning.
    pub(super) weight: u64,
    /// Requests in flight at most; `u32::MAX` is no limit.
    pub(super) most: u32,
    /// In slow start: chosen by its turns only, since few requests in flight say nothing good of it.
    pub(super) rising: bool,
}

/// The candidates of one pick: never empty, and without the servers tried before while others are left.
pub(super) struct Candidates<'a> {
    group: &'a Group,
    tried: &'a [usize],
}

impl Schedule {
    /// `generation` was read before the states of the servers are, here.
    pub(super) fn build(members: &[Member], settings: &Settings, generation: u64) -> Self {
        let panicking = panicking(members, settings);
        let panics = panicking.is_some();
        let [regular, reserve] = panicking
            .unwrap_or_else(|| candidates(members, settings))
            .map(|candidates| Group::new(candidates, settings.strategy));
        Self { generation, panics, regular, reserve }
    }

    pub(super) fn panics(&self) -> bool {
        self.panics
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_empty(&self) -> bool {
        self.regular.candidates.is_empty() && self.reserve.candidates.is_empty()
    }
}

impl Group {
    fn new(mut candidates: Vec<Candidate>, strategy: Strategy) -> Self {
        let divisor = candidates.iter().fold(0, |divisor, candidate| gcd(divisor, candidate.weight));
        for candidate in &mut candidates {
            candidate.weight /= divisor;
        }
        let turns = match strategy {
            Strategy::HighestRandomWeight => Box::default(),
            _ => turns(&candidates.iter().map(|candidate| candidate.weight).collect::<Vec<_>>()),
        };
        let common_prefix =
            common_prefix(candidates.iter().map(|candidate| candidate.server.url().as_bytes()));
        let equal_weights = candidates.iter().all(|candidate| candidate.weight == 1);
        Self { candidates: candidates.into(), turns, common_prefix, equal_weights }
    }

    fn has_untried(&self, tried: &[usize]) -> bool {
        self.candidates.iter().any(|candidate| !tried.contains(&candidate.index))
    }
}

impl Candidate {
    /// # Errors
    /// Itself, when it is full.
    pub(super) fn begin(&self) -> Result<&Self, &Self> {
        if self.server.begin_below(self.most) { Ok(self) } else { Err(self) }
    }
}

impl<'a> Candidates<'a> {
    pub(super) fn new(schedule: &'a Schedule, tried: &'a [usize]) -> Option<Self> {
        let Schedule { regular, reserve, .. } = schedule;
        let untried = [regular, reserve].into_iter().find(|group| group.has_untried(tried));
        if let Some(group) = untried {
            return Some(Self { group, tried });
        }
        // All were tried: again, then.
        let again = [regular, reserve].into_iter().find(|group| group.has_untried(&[]));
        again.map(|group| Self { group, tried: &[] })
    }

    /// The same without more of them, those that are full; `None`: nobody is left.
    pub(super) fn without<'b>(&'b self, tried: &'b [usize]) -> Option<Candidates<'b>> {
        self.group.has_untried(tried).then_some(Candidates { group: self.group, tried })
    }

    /// Those that were tried before.
    pub(super) fn tried(&self) -> &'a [usize] {
        self.tried
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &'a Candidate> {
        let tried = self.tried;
        self.group.candidates.iter().filter(move |candidate| !tried.contains(&candidate.index))
    }

    /// Whether nothing was tried before.
    pub(super) fn is_complete(&self) -> bool {
        self.tried.is_empty()
    }

    /// Number of candidates, tried or not.
    pub(super) fn total(&self) -> usize {
        self.group.candidates.len()
    }

    /// By position, tried or not.
    pub(super) fn at(&self, position: usize) -> &'a Candidate {
        &self.group.candidates[position]
    }

    pub(super) fn allows(&self, candidate: &Candidate) -> bool {
        !self.tried.contains(&candidate.index)
    }

    /// Whose turn it is, tried or not.
    pub(super) fn at_turn(&self, turn: u64) -> &'a Candidate {
        let turns = &self.group.turns;
        self.at(turns[(turn % turns.len() as u64) as usize] as usize)
    }

    pub(super) fn has_equal_weights(&self) -> bool {
        self.group.equal_weights
    }

    /// The bytes with which the URLs of all of them begin.
    pub(super) fn common_prefix(&self) -> &'a [u8] {
        &self.at(0).server.url().as_bytes()[..self.group.common_prefix]
    }

    /// Draws by weight: `random` may be any 32 bits.
    pub(super) fn draw(&self, random: u32) -> &'a Candidate {
        if self.is_complete() {
            return self.at_turn(scale(random, self.group.turns.len() as u64));
        }
        let total: u64 = self.iter().map(|candidate| candidate.weight).sum();
        let mut left = scale(random, total);
        let hit = self.iter().find(|candidate| match left.checked_sub(candidate.weight) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        // The weights add up to more than was drawn, so there is a hit.
        hit.unwrap_or_else(|| self.at(0))
    }
}

/// Maps 32 random bits evenly onto `0..below`.
pub(super) fn scale(random: u32, below: u64) -> u64 {
    ((u128::from(random) * u128::from(below)) >> 32) as u64
}

/// The servers that the operator wants to take part, with their configured weights.
pub(super) fn wanted<'a>(
    members: &'a [Member],
    settings: &Settings,
) -> impl Iterator<Item = Candidate> + use<'a> {
    let mut weights = vec![0_u64; members.len()];
    for member in members.iter().filter(|member| member.weight > 0) {
        weights[member.first] += match settings.strategy {
            Strategy::PowerOfTwoChoices => 1,
            _ => u64::from(member.weight),
        };
    }
    let weighty = weights.into_iter().enumerate().filter(|&(_, weight)| weight > 0);
    weighty.filter_map(|(index, weight)| {
        let Member { server, most, .. } = &members[index];
        let ready = server.admin_state() == AdminState::Ready;
        let (server, most) = (Arc::clone(server), *most);
        ready.then_some(Candidate { server, index, weight, most, rising: false })
    })
}

/// Whether nothing that judges servers has taken this one out.
pub(super) fn is_in(server: &Server, settings: &Settings) -> bool {
    server.status() != Status::Unhealthy && !(settings.outlier.is_some() && server.standing().is_ejected())
}

/// The regular candidates and the reserve.
fn candidates(members: &[Member], settings: &Settings) -> [Vec<Candidate>; 2] {
    let kept = match (settings.degraded_weight.clamp(0.0, 1.0) * WHOLE as f64).round() as u64 {
        0 if settings.degraded_weight > 0.0 => 1,
        kept => kept,
    };
    let [mut regular, mut reserve] = [Vec::new(), Vec::new()];
    for mut candidate in wanted(members, settings).filter(|candidate| is_in(&candidate.server, settings)) {
        let warmth = candidate.server.standing().warmth();
        let share = settings.slow_start.as_ref().map_or(WHOLE, |slow| warmth.share(slow));
        candidate.rising = share < WHOLE;
        candidate.weight *= share;
        match candidate.server.status() {
            Status::Degraded if kept == 0 => reserve.push(candidate),
            status => {
                candidate.weight *= if status == Status::Degraded { kept } else { WHOLE };
                regular.push(candidate);
            }
        }
    }
    [regular, reserve]
}

/// All wanted servers, if too few of them are in; nobody is spared then.
fn panicking(members: &[Member], settings: &Settings) -> Option<[Vec<Candidate>; 2]> {
    if settings.panic_threshold == 0 {
        return None;
    }
    let all: Vec<_> = wanted(members, settings).collect();
    let eligible = all.iter().filter(|candidate| is_in(&candidate.server, settings)).count();
    let panics = eligible * 100 < usize::from(settings.panic_threshold) * all.len();
    panics.then_some([all, Vec::new()])
}

/// One cycle of earliest eligible virtual deadline first (Stoica and Abdel-Wahab, "Earliest Eligible Virtual
/// Deadline First", 1995): of n turns, the k-th of a server with w is not before `(k - 1) * n / w` and due at
/// `k * n / w`; the earliest due goes first, in configured order where that is equal. So every server is less
/// than one turn off its share at any time, and not at all at the end: cycles follow each other without a seam,
/// any run of turns as long as the cycle has each server exactly its weight times.
///
/// Deadlines alone would be exact as well, but have weights 5, 1, 1 go a, a, a, a, a, b, c.
pub(super) fn turns(weights: &[u64]) -> Box<[u32]> {
    let total: u128 = weights.iter().map(|&weight| u128::from(weight)).sum();
    let cap = MAX_SLOTS as u128;
    let slots = |weight: u64| {
        if total <= cap {
            return weight;
        }
        // Rounded to nearest, and no more than `MAX_SLOTS`.
        ((u128::from(weight) * cap + total / 2) / total).max(1) as u64
    };
    let all: u64 = weights.iter().map(|&weight| slots(weight)).sum();
    let each = weights.iter().map(|&weight| slots(weight)).zip(0_u32..).flat_map(|(w, position)| {
        // With 32 binary places different deadlines stay different: `w` is below 2^16.
        (0..w).map(move |k| ((k * all).div_ceil(w), ((k + 1) << 32) / w, position))
    });
    let mut coming: Vec<(u64, u64, u32)> = each.collect();
    // Stable, as that is quick where there is order already: in the turns of each server.
    coming.sort();
    let mut coming = coming.into_iter().peekable();
    let mut eligible = BinaryHeap::new();
    // One is always eligible: not all can be ahead of their share.
    let next = |turn| {
        while let Some((_, due, position)) = coming.next_if(|&(from, ..)| from <= turn) {
            eligible.push(Reverse((due, position)));
        }
        eligible.pop().map(|Reverse((_, position))| position)
    };
    (0..all).filter_map(next).collect()
}

fn common_prefix<'a>(mut texts: impl Iterator<Item = &'a [u8]>) -> usize {
    let first = texts.next().unwrap_or_default();
    texts.fold(first.len(), |common, text| {
        first[..common].iter().zip(text).take_while(|(a, b)| a == b).count()
    })
}

pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The cycle, a letter per turn.
    fn letters(weights: &[u64]) -> String {
        turns(weights).iter().map(|&position| char::from(b'a' + position as u8)).collect()
    }

    #[test]
    fn turns_are_interleaved_smoothly() {
        assert_eq!(letters(&[]), "");
        assert_eq!(letters(&[1, 1, 1]), "abc");
        assert_eq!(letters(&[3, 1]), "abaa");
        assert_eq!(letters(&[1, 3]), "babb");
        assert_eq!(letters(&[5, 3, 1]), "ababacaba");
        assert_eq!(letters(&[2, 2, 1]), "abcab");
        assert_eq!(letters(&[5, 1, 1]), "abaacaa");
        assert_eq!(letters(&[1, 1, 6, 1, 1]), "cacbccdcec");
    }

    #[test]
    fn huge_weights_keep_their_shares_in_a_bounded_table() {
        let weights = [4_000_000_007, 3_000_000_019, 1];
        let cycle = turns(&weights);
        assert!(cycle.len() <= MAX_SLOTS + weights.len());
        let total: u64 = weights.iter().sum();
        for (position, &weight) in weights.iter().enumerate() {
            let got = cycle.iter().filter(|&&p| p as usize == position).count() as f64;
            let ideal = MAX_SLOTS as f64 * weight as f64 / total as f64;
            assert!((got - ideal).abs() <= 1.0, "{got} instead of {ideal}");
        }
        assert_eq!(turns(&vec![7; 20_000]).len(), 20_000, "each server has a turn, however many there are");
    }

    proptest! {
        #[test]
        fn any_window_of_one_cycle_is_exact(weights in prop::collection::vec(1_u64..40, 1..9), start in 0_usize..300) {
            let cycle = turns(&weights);
            prop_assert_eq!(cycle.len() as u64, weights.iter().sum::<u64>());
            let mut counts = vec![0; weights.len()];
            for turn in start..start + cycle.len() {
                counts[cycle[turn % cycle.len()] as usize] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn any_run_of_turns_gives_each_its_share(
            weights in prop::collection::vec(prop_oneof![1_u64..4, 1_u64..40, 100_u64..900], 1..9),
        ) {
            let cycle = turns(&weights);
            let mut counts = vec![0_u64; weights.len()];
            for (turn, &position) in cycle.iter().enumerate() {
                counts[position as usize] += 1;
                for (&count, &weight) in counts.iter().zip(&weights) {
                    // Since the start less than one turn off, so in any run of turns less than two.
                    let ideal = weight as f64 * (turn + 1) as f64 / cycle.len() as f64;
                    prop_assert!((count as f64 - ideal).abs() < 1.0);
                }
            }
        }
    }
}
