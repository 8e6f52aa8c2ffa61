//! Circuit breaker: stops sending to a service whose answers meet a condition, then lets it back slowly.
//!
//! Traefik's breaker, state by state; its standby, tripped and recovering are called closed, open and
//! half-open here. What a rejected request is answered is left to the caller.

mod expression;
mod latency;
mod machine;
mod window;

pub use self::expression::Expression;
pub use self::machine::{Admission, Breaker, Change, Settings, State};
pub use crate::syntax::SyntaxError as ExpressionError;
