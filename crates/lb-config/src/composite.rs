//! Services made of other services, checked.

use crate::dynamic::StickyCookie;

/// A service whose requests other services answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Composite {
    pub kind: CompositeKind,
    /// `healthCheck: {}`: it minds the health of its children, and has one itself for its parents.
    pub health_check: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CompositeKind {
    /// Each child in turn, as often as its weight says.
    Weighted { services: Vec<WeightedChild>, sticky: Option<StickyCookie> },
    /// The same client gets the same child while that is there.
    HighestRandomWeight { services: Vec<WeightedChild> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedChild {
    pub service: ServiceRef,
    /// 0 gets nothing.
    pub weight: u32,
}

/// A service as another one names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRef {
    /// Qualified.
    pub name: String,
    /// Cookie and hash are made of this.
    pub written: String,
}

impl Composite {
    /// Whether it is up while the children are that `up` says.
    pub fn is_up(&self, up: impl Fn(&str) -> bool) -> bool {
        match &self.kind {
            CompositeKind::Weighted { services, .. } | CompositeKind::HighestRandomWeight { services } => {
                services.iter().any(|child| child.weight > 0 && up(&child.service.name))
            }
        }
    }

    /// Every service that it names, in the order of the file.
    pub fn children(&self) -> impl Iterator<Item = &ServiceRef> {
        match &self.kind {
            CompositeKind::Weighted { services, .. } | CompositeKind::HighestRandomWeight { services } => {
                services.iter().map(|child| &child.service)
            }
        }
    }
}
