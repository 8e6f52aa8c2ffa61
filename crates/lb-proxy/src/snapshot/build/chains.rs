//! Chains of middlewares, replaced by their members.

use lb_config::dynamic::Middleware;

use super::{Builder, qualify};

/// Chains inside each other at most; chosen.
const DEEPEST: usize = 32;
/// Members of one chain at most, those of the chains in it counted each time: a few chains that name the next one
/// twice would be millions. Chosen.
const MOST: usize = 1_000;

impl Builder<'_> {
    /// Adds `name`, or in order what it is a chain of.
    pub(super) fn flatten(&self, name: &str, into: &mut Vec<String>) -> Result<(), String> {
        self.unchain(name, into, &mut Vec::new(), &mut 0)
    }

    fn unchain(
        &self,
        name: &str,
        into: &mut Vec<String>,
        above: &mut Vec<String>,
        seen: &mut usize,
    ) -> Result<(), String> {
        let Some(Middleware::Chain { middlewares }) = self.config.middlewares.get(name) else {
            if !self.config.middlewares.contains_key(name) {
                return Err(format!("middleware {name:?} does not exist"));
            }
            into.push(name.to_owned());
            return Ok(());
        };
        if above.iter().any(|chain| chain == name) {
            return Err(format!("middleware {name:?} contains itself"));
        }
        if above.len() == DEEPEST {
            return Err(format!("middleware {:?}: more than {DEEPEST} chains inside each other", above[0]));
        }
        above.push(name.to_owned());
        for member in middlewares {
            *seen += 1;
            if *seen > MOST {
                return Err(format!("middleware {:?}: a chain of more than {MOST} middlewares", above[0]));
            }
            self.unchain(&qualify(member, name), into, above, seen)?;
        }
        above.pop();
        Ok(())
    }
}
