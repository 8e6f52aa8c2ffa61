//! Where a value lies below the root.

use std::fmt;
use std::rc::Rc;

/// The keys and indices that lead to a value. Only a problem puts them into words, so that the many
/// values without one cost no text.
#[derive(Clone, Default)]
pub(crate) struct Path<'a>(Option<Rc<Step<'a>>>);

struct Step<'a> {
    parent: Path<'a>,
    segment: Segment<'a>,
}

/// The last step.
#[derive(Clone, Copy)]
pub(super) enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    pub(super) fn is_root(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn join(&self, segment: Segment<'a>) -> Self {
        Self(Some(Rc::new(Step { parent: self.clone(), segment })))
    }
}

/// `http.routers.api.middlewares[0]`; nothing for the root.
impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Step { parent, segment }) = self.0.as_deref() else { return Ok(()) };
        parent.fmt(f)?;
        match segment {
            Segment::Key(key) if parent.0.is_none() => f.write_str(key),
            Segment::Key(key) => write!(f, ".{key}"),
            Segment::Index(index) => write!(f, "[{index}]"),
        }
    }
}
