//! `api.token` and `api.tokenFile`: who may change the state of servers.

use std::path::Path;

use crate::decode::{Block, Text};
use crate::document::read_text;
use crate::problem::quoted;
use crate::static_config::ApiToken;

/// A shorter token could be guessed over the network; chosen, 16 hexadecimal digits are 64 bits.
const SHORTEST: usize = 16;

const HINT: &str = "make one with `openssl rand -hex 32`";

pub(super) fn read(block: &Block<'_>) -> Option<ApiToken> {
    let given =
        |key| block.take(key).and_then(|field| field.text()).filter(|text: &Text<'_>| !text.value.is_empty());
    let (token, file) = (given("token"), given("tokenFile"));
    match (&token, &file) {
        (Some(_), Some(file)) => {
            file.error("there is a `token` already", Some("keep one of the two".to_owned()));
            None
        }
        (Some(text), None) => checked(text, text.value),
        (None, Some(text)) => match read_text(Path::new(text.value)) {
            Ok(content) => checked(text, content.trim()),
            Err(problem) => {
                let is_relative = Path::new(text.value).is_relative();
                let hint = is_relative.then(|| "the path is relative to the working directory".to_owned());
                text.error(format!("{} {}", quoted(text.value), problem.message), hint.or(problem.hint));
                None
            }
        },
        (None, None) => None,
    }
}

/// The token itself is never repeated in a message.
fn checked(text: &Text<'_>, token: &str) -> Option<ApiToken> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        text.error("the token has characters that a header field cannot carry", Some(HINT.to_owned()));
        return None;
    }
    if token.len() < SHORTEST {
        text.error(format!("the token is shorter than {SHORTEST} characters"), Some(HINT.to_owned()));
        return None;
    }
    Some(ApiToken::new(token))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Problem, Problems, parse_static};

    const TOKEN: &str = "0123456789abcdef";

    /// The token that a file allows, or its problems.
    fn read(api: &str) -> Result<ApiToken, Vec<String>> {
        match parse_static("vigie.yml", &format!("api: {api}")) {
            Ok((config, _)) => Ok(config.api.unwrap().token.unwrap()),
            Err(Problems(problems)) => {
                let line = |p: &Problem| format!("{}:{}: {}: {}", p.line, p.column, p.key, p.message);
                Err(problems.iter().map(line).collect())
            }
        }
    }

    #[test]
    fn a_token_is_written_or_in_a_file() {
        assert_eq!(read(&format!("{{token: '{TOKEN}'}}")).unwrap(), ApiToken::new(TOKEN));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
        let file = path.display();
        assert_eq!(read(&format!("{{tokenFile: '{file}'}}")).unwrap(), ApiToken::new(TOKEN));
        assert_eq!(
            read(&format!("{{token: '{TOKEN}', tokenFile: '{file}'}}")).unwrap_err(),
            ["1:45: api.tokenFile: there is a `token` already"]
        );
    }

    #[test]
    fn a_weak_or_missing_token_is_refused_without_being_shown() {
        for (api, expected) in [
            ("{token: hunter2}", "1:14: api.token: the token is shorter than 16 characters"),
            (
                "{token: 'correct horse battery staple'}",
                "1:14: api.token: the token has characters that a header field cannot carry",
            ),
            ("{tokenFile: /nowhere/token}", "1:18: api.tokenFile: `/nowhere/token` does not exist"),
        ] {
            assert_eq!(read(api).unwrap_err(), [expected], "{api}");
        }
        assert_eq!(format!("{:?}", ApiToken::new(TOKEN)), "ApiToken(..)");
    }
}
