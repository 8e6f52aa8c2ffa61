//! What an operator wants of one server: as it is said, shown, logged and handed to another process.

use std::time::SystemTime;

use crate::health::AdminState;

/// An order that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorState {
    /// Qualified name of the service.
    pub service: String,
    /// As configured: with the service it names the server through every reload.
    pub url: String,
    pub state: AdminState,
    pub since: SystemTime,
    /// When [`AdminState::Drain`] becomes [`AdminState::Maintenance`], so that clients with a cookie move on as
    /// well; `None`: never.
    pub until: Option<SystemTime>,
    /// Who gave the order, in their own words.
    pub by: String,
}

impl AdminState {
    const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maintenance];

    /// As in the API, in logs and on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_of_its_own() {
        for state in AdminState::ALL {
            assert_eq!(AdminState::from_word(state.word()), Some(state));
        }
        assert_eq!(AdminState::from_word("Drain"), None);
    }
}
