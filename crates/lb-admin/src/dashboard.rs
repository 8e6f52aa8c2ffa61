//! The dashboard: one page without foreign parts, reading the API.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use sha2::{Digest as _, Sha256};

use crate::Response;

const PAGE: &str = include_str!("dashboard.html");

pub(crate) fn page() -> Response {
    Response::new(200, PAGE)
        .with("Content-Type", "text/html; charset=utf-8")
        .with("Content-Security-Policy", policy())
        .with("X-Content-Type-Options", "nosniff")
        .with("Referrer-Policy", "no-referrer")
        .with("Cache-Control", "no-cache")
}

/// Only the script and the style that the page itself holds, and no peer but the API beside it. A rule or a
/// label with markup in it could not run even if the page forgot to escape it.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'self'",
        hash_of("script"),
        hash_of("style")
    )
}

/// The source expression of an inline element (Content Security Policy Level 3, section 2.3.1).
fn hash_of(element: &str) -> String {
    let content = PAGE
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map_or("", |(content, _)| content);
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)))
}
