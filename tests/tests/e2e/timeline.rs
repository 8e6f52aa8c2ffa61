//! What happened when, for people: `cargo nextest run -p lb-e2e rollout --no-capture` shows it.

#[expect(clippy::print_stdout, reason = "time lines are for people")]
pub(crate) fn show(text: &str) {
    println!("{text}");
}
