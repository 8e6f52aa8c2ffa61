//! "Did you mean": hints drawn from what would have been right.

use crate::problem::{printable, quoted};

/// Names that a hint lists before it says how many more there are; chosen, one terminal line.
const LISTED: usize = 12;

/// Candidates compared; chosen, so that a thousand typos in a huge file stay cheap.
const COMPARED: usize = 2_000;

/// The candidate that `word` is most likely a misspelling of, if any is near.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.is_empty() || word.len() > 100 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .take(COMPARED)
        .filter(|candidate| candidate.len() <= 100)
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean `payments`? known services: payments, users".
pub fn hint<'a>(word: &str, what: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let known = if candidates.is_empty() {
        format!("there are no {what}")
    } else {
        let listed: Vec<String> = candidates.iter().take(LISTED).map(|name| printable(name)).collect();
        let more = match candidates.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("known {what}: {}{more}", listed.join(", "))
    };
    match nearest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean {}? {known}", quoted(near)),
        None => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_found_and_a_far_one_is_not() {
        let services = ["payments", "users"];
        assert_eq!(nearest("pyaments", services), Some("payments"));
        assert_eq!(nearest("USERS", services), Some("users"));
        assert_eq!(nearest("orders", services), None);
        assert_eq!(nearest("", services), None);
    }

    #[test]
    fn hints_list_what_exists() {
        assert_eq!(
            hint("pyaments", "services", ["payments", "users"]),
            "did you mean `payments`? known services: payments, users"
        );
        assert_eq!(hint("x", "services", []), "there are no services");
        let many: Vec<String> = (0..20).map(|n| format!("service-{n}")).collect();
        assert!(hint("x", "services", many.iter().map(String::as_str)).ends_with(", service-11 and 8 more"));
    }
}
