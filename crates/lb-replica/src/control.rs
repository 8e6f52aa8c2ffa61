//! `/fail?database=1&redis_ms=80&memory=96`: the words that break and mend a replica.

use std::time::Duration;

use crate::simulation::{HEALTHY, LATENCY, State};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("no control is called `{word}`; known: {known}")]
    Unknown { word: String, known: String },
    #[error("{word}={value}: {wanted}")]
    Value { word: String, value: String, wanted: &'static str },
}

/// `state` as it is after the words of `query`.
pub(crate) fn apply(state: &State, query: &str) -> Result<State, ControlError> {
    let mut state = state.clone();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (word, value) = pair.split_once('=').unwrap_or((pair, "1"));
        let wrong = |wanted| ControlError::Value { word: word.to_owned(), value: value.to_owned(), wanted };
        let switch = || match value {
            "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(wrong("1 or 0")),
        };
        let percent =
            || value.parse().ok().filter(|percent| *percent <= 100).ok_or_else(|| wrong("0 to 100"));
        match word {
            "reset" => {
                (state.vitals, state.live) = (HEALTHY, true);
                for dependency in &mut state.dependencies {
                    (dependency.failing, dependency.latency) = (false, LATENCY);
                }
            }
            "live" => state.live = switch()?,
            "memory" => state.vitals.memory_percent = percent()?,
            "cpu" => state.vitals.cpu_percent = percent()?,
            _ => {
                // `db` is what people type for a database.
                let (name, slow) = word.strip_suffix("_ms").map_or((word, false), |name| (name, true));
                let name = if name == "db" { "database" } else { name };
                let known = words(&state);
                let Some(dependency) =
                    state.dependencies.iter_mut().find(|dependency| dependency.real.name == name)
                else {
                    return Err(ControlError::Unknown { word: word.to_owned(), known });
                };
                if slow {
                    let milliseconds = value.parse().ok().filter(|ms| *ms <= 60_000);
                    dependency.latency =
                        Duration::from_millis(milliseconds.ok_or_else(|| wrong("0 to 60000"))?);
                } else {
                    dependency.failing = switch()?;
                }
            }
        }
    }
    Ok(state)
}

fn words(state: &State) -> String {
    let of_dependencies =
        state.dependencies.iter().flat_map(|d| [d.real.name.clone(), format!("{}_ms", d.real.name)]);
    let rest = ["memory", "cpu", "live", "reset"].map(str::to_owned);
    of_dependencies.chain(rest).collect::<Vec<_>>().join(", ")
}

/// The state in the words of the controls.
pub(crate) fn describe(state: &State) -> String {
    let of_dependencies = state.dependencies.iter().flat_map(|d| {
        let name = &d.real.name;
        [format!("{name}={}", u8::from(d.failing)), format!("{name}_ms={}", d.latency.as_millis())]
    });
    let rest = [
        format!("memory={}", state.vitals.memory_percent),
        format!("cpu={}", state.vitals.cpu_percent),
        format!("live={}", u8::from(state.live)),
    ];
    of_dependencies.chain(rest).collect::<Vec<_>>().join("&")
}
