//! Chooses among services: what a `weighted` or `highestRandomWeight` service does with its children.
//!
//! Unlike a server a child has no state of its own here: whether it is up is its own affair and asked at each
//! choice, so that there is nothing to bring up to date and nothing that could be out of date. The schedule of turns
//! is kept for as long as the same children are up.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::cookies::Cookies;
use super::schedule::{gcd, scale, turns};
use super::server::Turn;
use super::{CookieMatch, hrw};

/// One child as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// As written in the configuration: cookie and hash are made of it.
    pub name: String,
    /// 0: never used, cookie or not.
    pub weight: u32,
}

/// How a child is chosen among those that are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Exact shares by weight, smoothly interleaved.
    Turns,
    /// Rendezvous hashing of the client's address.
    Hash,
}

/// The children of one service.
#[derive(Debug)]
pub struct Children {
    spread: Spread,
    children: Box<[ChildSpec]>,
    cookies: Cookies,
    /// Shared by all successive services of one name.
    turn: Arc<Turn>,
    schedule: ArcSwap<Schedule>,
}

/// The turns while certain children are up.
#[derive(Debug)]
struct Schedule {
    up: Box<[bool]>,
    /// Indexes of children.
    turns: Box<[u32]>,
}

/// What a choice depends on, besides the children.
pub struct Choice<'a> {
    /// The peer, not what a header claims.
    pub client: IpAddr,
    /// Value of the sticky cookie; `None` when the client sent none.
    pub sticky: Option<&'a str>,
    /// Fresh random bits for each choice.
    pub random: u64,
    /// Whether a child may be chosen.
    pub up: &'a dyn Fn(usize) -> bool,
    /// Children with which this request has tried everything in vain: taken again only when no other is up.
    pub spent: &'a dyn Fn(usize) -> bool,
}

impl Children {
    /// `previous` are those of the service of the same name in the configuration before: turns go on where they were.
    pub fn new(spread: Spread, children: &[ChildSpec], previous: Option<&Self>) -> Self {
        let of_use = children.iter().enumerate().filter(|(_, child)| child.weight > 0);
        Self {
            spread,
            cookies: Cookies::of_names(of_use.map(|(index, child)| (&*child.name, index))),
            children: children.into(),
            turn: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.turn)),
            schedule: ArcSwap::from_pointee(Schedule::new(children, &vec![true; children.len()])),
        }
    }

    /// Index of the child whose turn it is, and whether the client's cookie named it; `None`: no child is up.
    ///
    /// Takes no lock, and allocates only for the first choice after children went up or down.
    pub fn choose(&self, choice: &Choice<'_>) -> Option<(usize, CookieMatch)> {
        let may = |index: usize| (choice.up)(index) && !(choice.spent)(index);
        if let Some((index, matched)) = choice.sticky.and_then(|value| self.cookies.find(value))
            && may(index)
        {
            return Some((index, matched));
        }
        let chosen = match self.spread {
            Spread::Turns => self.by_turn(choice),
            Spread::Hash => self.by_hash(choice, may).or_else(|| self.by_hash(choice, choice.up)),
        };
        chosen.map(|index| (index, CookieMatch::None))
    }

    fn by_turn(&self, choice: &Choice<'_>) -> Option<usize> {
        let known = self.schedule.load();
        let changed = (0..).zip(&*known.up).any(|(index, &was)| was != (choice.up)(index));
        // Not read again: another worker may see other children up in this moment.
        let newer = changed.then(|| {
            let up: Vec<bool> = (0..self.children.len()).map(choice.up).collect();
            let newer = Arc::new(Schedule::new(&self.children, &up));
            self.schedule.store(Arc::clone(&newer));
            newer
        });
        let turns = newer.as_ref().map_or(&known.turns, |newer| &newer.turns);
        if turns.is_empty() {
            return None;
        }
        let at = |turn: u64| turns[(turn % turns.len() as u64) as usize] as usize;
        if !(0..self.children.len()).any(choice.spent) {
            return Some(at(self.turn.next()));
        }
        // Another is drawn by weight, so that a retry takes no turn from other clients.
        let drawn = scale(choice.random as u32, turns.len() as u64);
        let mut others = (0..turns.len() as u64).map(|step| at(drawn + step));
        Some(others.find(|&index| !(choice.spent)(index)).unwrap_or_else(|| at(drawn)))
    }

    fn by_hash(&self, choice: &Choice<'_>, may: impl Fn(usize) -> bool) -> Option<usize> {
        let eligible =
            self.children.iter().enumerate().filter(|(index, child)| child.weight > 0 && may(*index));
        let named = eligible.map(|(index, child)| (&*child.name, u64::from(child.weight), index));
        hrw::highest_named(named, choice.client)
    }
}

impl Schedule {
    fn new(children: &[ChildSpec], up: &[bool]) -> Self {
        let eligible = || (0_u32..).zip(children.iter().zip(up)).filter(|(_, (c, up))| **up && c.weight > 0);
        let divisor = eligible().fold(0, |divisor, (_, (child, _))| gcd(divisor, u64::from(child.weight)));
        let weights: Vec<u64> =
            eligible().map(|(_, (child, _))| u64::from(child.weight) / divisor.max(1)).collect();
        let indexes: Vec<u32> = eligible().map(|(index, _)| index).collect();
        let turns = turns(&weights).iter().map(|&position| indexes[position as usize]).collect();
        Self { up: up.into(), turns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sticky::cookie_value;

    fn children(spread: Spread, weights: &[u32]) -> Children {
        Children::new(spread, &specs(weights), None)
    }

    fn specs(weights: &[u32]) -> Vec<ChildSpec> {
        let name = |at: usize| char::from(b'a' + at as u8).to_string();
        weights.iter().enumerate().map(|(at, &weight)| ChildSpec { name: name(at), weight }).collect()
    }

    /// A letter per choice: `down` and `spent` are those that are.
    fn choose(children: &Children, (down, spent): (&str, &str), last: u8, sticky: Option<&str>) -> char {
        let letter = |index: usize| char::from(b'a' + index as u8);
        let chosen = children.choose(&Choice {
            client: IpAddr::from([127, 0, 0, last]),
            sticky,
            random: u64::from(last) << 24,
            up: &|index| !down.contains(letter(index)),
            spent: &|index| spent.contains(letter(index)),
        });
        chosen.map_or('-', |(index, _)| letter(index))
    }

    fn run(children: &Children, state: (&str, &str), count: u8) -> String {
        (1..=count).map(|last| choose(children, state, last, None)).collect()
    }

    #[test]
    fn turns_are_exact_among_those_that_are_up() {
        let children = children(Spread::Turns, &[30, 10, 0]);
        assert_eq!(run(&children, ("", ""), 8), "abaaabaa");
        assert_eq!(run(&children, ("a", ""), 3), "bbb");
        assert_eq!(run(&children, ("ab", ""), 2), "--", "weight 0 is never used");
        assert_eq!(run(&children, ("b", ""), 3), "aaa");
        let shares = run(&children, ("", ""), 40);
        assert_eq!(shares.matches('b').count(), 10, "{shares}");
    }

    #[test]
    fn turns_go_on_after_a_reload() {
        let first = children(Spread::Turns, &[1, 1, 1]);
        assert_eq!(run(&first, ("", ""), 2), "ab");
        let second = Children::new(Spread::Turns, &specs(&[1, 1, 1]), Some(&first));
        assert_eq!(run(&second, ("", ""), 2), "ca");
    }

    #[test]
    fn what_was_tried_in_vain_comes_last() {
        let turns = children(Spread::Turns, &[3, 1]);
        assert_eq!(run(&turns, ("", "a"), 8), "bbbbbbbb");
        assert_eq!(run(&turns, ("b", "a"), 2), "aa", "there is nobody else");
        let hash = children(Spread::Hash, &[1, 1]);
        assert!(run(&hash, ("", "a"), 20).chars().all(|c| c == 'b'));
        assert_eq!(run(&hash, ("b", "a"), 2), "aa");
    }

    #[test]
    fn cookies_name_children_as_written() {
        let children = children(Spread::Turns, &[1, 1, 0]);
        let [a, b, c] = ["a", "b", "c"].map(cookie_value);
        for (cookie, state, expected) in
            [(&b, ("", ""), "bbb"), (&a, ("", ""), "aaa"), (&b, ("b", ""), "aaa"), (&b, ("", "b"), "aaa")]
        {
            let chosen: String = (1..=3).map(|last| choose(&children, state, last, Some(cookie))).collect();
            assert_eq!(chosen, expected, "{state:?}");
        }
        assert_ne!(choose(&children, ("", ""), 1, Some(&c)), 'c', "weight 0 is never used");
    }

    /// What Traefik 3.7.15 chose for the same clients.
    #[test]
    fn hashes_are_those_of_traefik() {
        let named = |weights: [u32; 2]| {
            let names = ["blue", "green-canary@file"].map(str::to_owned);
            let specs = names.into_iter().zip(weights).map(|(name, weight)| ChildSpec { name, weight });
            Children::new(Spread::Hash, &specs.collect::<Vec<_>>(), None)
        };
        assert_eq!(run(&named([1, 1]), ("", ""), 24), "abbaaabababaabbbaaaabbab");
        assert_eq!(run(&named([1, 2]), ("", ""), 24), "bbbaaabbbabaabbbbaaabbab");
        let children = named([1, 2]);
        assert!(run(&children, ("b", ""), 9).chars().all(|c| c == 'a'));
        assert_eq!(run(&children, ("ab", ""), 1), "-");
    }
}
