//! `grpcWeb`: the heads of gRPC-Web and of what browsers ask before (CORS); [`grpc_web`](crate::http::grpc_web) has the
//! bodies.

use lb_http1::Head;

use super::Step;
use crate::exchange::Exchange;
use crate::http::encode::Encode;
use crate::http::local::Local;

const GRPC: &str = "application/grpc";

pub(crate) struct GrpcWeb {
    allow_origins: Vec<String>,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Binary,
    /// In base64.
    Text,
}

impl Form {
    /// `None`: it is not gRPC-Web.
    pub(crate) fn of(head: &Head) -> Option<Self> {
        let (form, _) = split(head.get_str("content-type")?)?;
        (head.method() == "POST").then_some(form)
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Binary => "application/grpc-web",
            Self::Text => "application/grpc-web-text",
        }
    }
}

/// The form, and what follows its name.
fn split(kind: &str) -> Option<(Form, &str)> {
    // The longer name first: one begins the other.
    [Form::Text, Form::Binary].into_iter().find_map(|form| {
        let name = form.media_type();
        let start = kind.get(..name.len())?;
        start.eq_ignore_ascii_case(name).then(|| (form, &kind[name.len()..]))
    })
}

impl GrpcWeb {
    pub(crate) fn new(allow_origins: &[String]) -> Self {
        Self { allow_origins: allow_origins.to_vec() }
    }

    /// Makes the request gRPC; the form of the answer where it was gRPC-Web, or what a browser gets that asks whether it
    /// may send one.
    pub(crate) fn on_request(&self, x: &mut Exchange) -> (Option<Form>, Step) {
        if is_preflight(&x.head) {
            return (None, Step::Respond(self.preflight(&x.head)));
        }
        let Some(form) = Form::of(&x.head) else { return (None, Step::Next) };
        let rest = x.head.get_str("content-type").and_then(split).map(|(_, rest)| rest).unwrap_or_default();
        let kind = format!("{GRPC}{rest}");
        x.head.set("Content-Type", kind.as_bytes());
        // The gRPC protocol wants it of every client, and browsers cannot send it: servers refuse calls without.
        x.head.set("Te", b"trailers");
        x.origin.clear();
        x.origin.push_str(x.head.get_str("origin").unwrap_or_default());
        (Some(form), Step::Next)
    }

    pub(crate) fn on_response(&self, x: &mut Exchange, form: Form) {
        let Exchange { response, origin, encode, .. } = x;
        let kind = response.get_str("content-type").unwrap_or_default();
        if let Some(rest) = kind.strip_prefix(GRPC)
            && matches!(rest.bytes().next(), None | Some(b'+' | b';' | b' '))
            // The others have no body.
            && !matches!(response.status(), 101 | 204 | 304)
        {
            let kind = format!("{}{rest}", form.media_type());
            response.set("Content-Type", kind.as_bytes());
            // In place of what `compress` would do: gRPC compresses by itself.
            *encode = Some(Encode::Web(form));
            // They are in the body.
            response.remove("trailer");
        }
        response.append("Vary", b"Origin");
        if self.allows(origin) {
            // As by Traefik, what the server says of it wins.
            let mut say = |name: &str, lower: &str, value: &[u8]| {
                if !response.contains(lower) {
                    response.append(name, value);
                }
            };
            say("Access-Control-Allow-Origin", "access-control-allow-origin", origin.as_bytes());
            say("Access-Control-Allow-Credentials", "access-control-allow-credentials", b"true");
        }
        let exposed = exposed(response);
        response.set("Access-Control-Expose-Headers", exposed.as_bytes());
    }

    fn allows(&self, origin: &str) -> bool {
        !origin.is_empty() && self.allow_origins.iter().any(|allowed| allowed == "*" || allowed == origin)
    }

    /// Answered here, even for an origin that gets nothing, as by Traefik.
    fn preflight(&self, head: &Head) -> Local {
        let local = Local::bare(200)
            .with("Vary", "Origin")
            .with("Vary", "Access-Control-Request-Method")
            .with("Vary", "Access-Control-Request-Headers");
        let (origin, method) = (text(head, "origin"), text(head, "access-control-request-method"));
        if !self.allows(origin) || !matches!(method, "GET" | "POST" | "HEAD" | "OPTIONS") {
            return local;
        }
        let asked = text(head, "access-control-request-headers").split(',').map(str::trim);
        let headers: Vec<String> = asked.filter(|name| !name.is_empty()).map(canonical).collect();
        local
            .with("Access-Control-Allow-Origin", origin.to_owned())
            .with("Access-Control-Allow-Methods", method.to_owned())
            .with("Access-Control-Allow-Headers", headers.join(", "))
            .with("Access-Control-Allow-Credentials", "true")
            // Ten minutes.
            .with("Access-Control-Max-Age", "600")
    }
}

/// The names of all fields, once each, and of the trailers that every answer has.
fn exposed(response: &Head) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in
        response.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("access-control-expose-headers"))
    {
        if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            names.push(name);
        }
    }
    names.extend(["grpc-status", "grpc-message"]);
    names.join(", ")
}

fn text<'a>(head: &'a Head, name: &str) -> &'a str {
    head.get_str(name).unwrap_or_default()
}

fn is_preflight(head: &Head) -> bool {
    head.method() == "OPTIONS"
        && !text(head, "access-control-request-method").is_empty()
        && text(head, "access-control-request-headers").to_ascii_lowercase().contains("x-grpc-web")
}

/// As Go writes the name of a header.
fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|c| {
            let written = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            written
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, fields: &[(&str, &str)]) -> Head {
        let mut head = Head::new();
        head.set_method(method);
        fields.iter().for_each(|(name, value)| head.append(name, value.as_bytes()));
        head
    }

    #[test]
    fn gets_what_is_grpc_web() {
        for (method, kind, expected) in [
            ("POST", "application/grpc-web", Some(Form::Binary)),
            ("POST", "application/grpc-web+proto", Some(Form::Binary)),
            ("POST", "Application/gRPC-Web-Text; x=y", Some(Form::Text)),
            ("GET", "application/grpc-web", None),
            ("POST", "application/grpc", None),
            ("POST", "text/plain", None),
        ] {
            assert_eq!(Form::of(&request(method, &[("Content-Type", kind)])), expected, "{method} {kind}");
        }
        assert_eq!(split("application/grpc-web-text+proto"), Some((Form::Text, "+proto")));
    }

    #[test]
    fn a_preflight_names_what_is_allowed() {
        let web = GrpcWeb::new(&["https://ok.test".to_owned()]);
        let allowed = |origin: &str, method: &str, names: &str| {
            let head = request(
                "OPTIONS",
                &[
                    ("Origin", origin),
                    ("Access-Control-Request-Method", method),
                    ("Access-Control-Request-Headers", names),
                ],
            );
            assert_eq!(is_preflight(&head), names.contains("rpc"));
            let local = web.preflight(&head);
            let found = local.headers.iter().find(|(name, _)| *name == "Access-Control-Allow-Headers");
            found.map(|(_, value)| value.to_string())
        };
        let names = "content-type,x-grpc-web";
        assert_eq!(allowed("https://ok.test", "POST", names).as_deref(), Some("Content-Type, X-Grpc-Web"));
        assert_eq!(allowed("https://bad.test", "POST", names), None);
        assert_eq!(allowed("https://ok.test", "DELETE", names), None);
        assert!(allowed("https://ok.test", "POST", "content-type").is_some());
        assert!(GrpcWeb::new(&["*".to_owned()]).allows("https://any.test"));
        assert!(!GrpcWeb::new(&["*".to_owned()]).allows(""));
    }
}
