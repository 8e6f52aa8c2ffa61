//! What goes to the terminal rather than into a log: reports, answers to commands.

use std::io::Write;

/// To standard output. A closed pipe is no reason to stop.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// To standard error.
pub(crate) fn complain(text: &str) {
    // In one piece: the log has a thread of its own, and its lines would come in between.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
