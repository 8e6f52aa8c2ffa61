//! `rest@internal`: whoever may send a configuration sends it here.

use lb_provider::Rest;
use lb_proxy::{InternalRequest, InternalResponse};

/// Answers a request below `/api/providers`, as Traefik.
pub(crate) fn answer(rest: &Rest, request: &InternalRequest) -> InternalResponse {
    let text = |status: u16, body: &str| InternalResponse {
        status,
        headers: vec![
            ("Content-Type", "text/plain; charset=utf-8".to_owned()),
            ("X-Content-Type-Options", "nosniff".to_owned()),
        ],
        body: format!("{body}\n").into_bytes(),
    };
    let provider = match request.path.strip_prefix("/api/providers/") {
        Some(provider) if !provider.is_empty() && !provider.contains('/') => provider,
        _ => return text(404, "404 page not found"),
    };
    let InternalRequest { client, method, .. } = request;
    if method != "PUT" {
        let headers = vec![("Allow", "PUT".to_owned())];
        return InternalResponse { status: 405, headers, body: Vec::new() };
    }
    if provider != "rest" {
        return text(400, "Only 'rest' provider can be updated through the REST API");
    }
    match rest.put(&request.body) {
        Ok(echo) => {
            tracing::info!(%client, bytes = request.body.len(), "The provider rest was sent a configuration");
            let headers = vec![("Content-Type", "application/json; charset=UTF-8".to_owned())];
            InternalResponse { status: 200, headers, body: echo.to_string().into_bytes() }
        }
        Err(problems) => {
            tracing::warn!(%client, "The provider rest refuses a configuration: {problems}");
            text(400, &problems.to_string())
        }
    }
}
