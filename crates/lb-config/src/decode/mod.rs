//! From the tree to typed values, the way Traefik's decoder does it.
//!
//! The functions that read a block are its schema: every key they ask for is known, what is left
//! over when they call [`Block::finish`] is an unknown key. Nothing stops at the first problem.

mod asked;
mod block;
mod elsewhere;
mod field;
mod path;
mod report;
mod text;
mod values;

pub(crate) use asked::{Asked, Shape};
pub(crate) use block::Block;
pub(crate) use field::{Enabled, Field};
pub(crate) use report::{Findings, KEPT, Report};
pub(crate) use text::Text;
pub(crate) use values::boolean;
