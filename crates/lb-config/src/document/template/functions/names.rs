//! Words of names: `HTTPServer`, `http_server`, `http-server`.

/// What joins words.
fn is_connector(c: char) -> bool {
    matches!(c, '_' | '-') || c.is_whitespace()
}

/// In lower case with `connector` between the words: `HTTP20xOK` is `http_20x_ok`, `Bld4Floor3rd` is `bld4_floor_3rd`.
pub(super) fn separated(text: &str, connector: char) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or(' ');
    let is_lower = |c: char| c.is_alphabetic() && !c.is_uppercase();
    let mut out = String::with_capacity(text.len() + 8);
    // In `20x3y` everything after the first digit belongs together.
    let mut in_number = false;
    for (index, c) in chars.iter().copied().enumerate() {
        if is_connector(c) {
            out.push(connector);
            in_number = false;
            continue;
        }
        let before = if index == 0 { ' ' } else { at(index - 1) };
        let starts = if c.is_uppercase() {
            !before.is_uppercase() || is_lower(at(index + 1))
        } else if c.is_numeric() {
            let end =
                || chars[index..].iter().position(|c| !c.is_numeric()).map_or(chars.len(), |n| index + n);
            let begins = !in_number && !before.is_numeric() && is_lower(at(end()));
            in_number |= begins;
            begins
        } else {
            false
        };
        in_number &= c.is_numeric() || is_lower(c);
        if starts && before.is_alphanumeric() {
            out.push(connector);
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// Each word but the first with a capital, nothing between them but what is there twice: `http_server` is `httpServer`.
/// Further capitals at the beginning of a word are taken for a shout: `HTTPServer` is `httpserver`.
pub(super) fn camel_case(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut waiting = String::new();
    let (mut starts, mut shouts) = (true, true);
    for c in text.chars() {
        if is_connector(c) {
            waiting.push(c);
            starts = true;
            continue;
        }
        let is_first = out.is_empty();
        // One connector between two words goes.
        if !is_first {
            waiting.pop();
        }
        out.push_str(&waiting);
        waiting.clear();
        shouts = (starts || shouts) && c.is_uppercase();
        match std::mem::take(&mut starts) {
            true if !is_first => out.extend(c.to_uppercase()),
            false if !shouts => out.push(c),
            true | false => out.extend(c.to_lowercase()),
        }
    }
    out + &waiting
}
