//! The head of the request that an auth server gets.

use lb_http1::Head;

use super::ForwardAuth;
use crate::exchange::Exchange;
use crate::http::forwarded::{append_forwarded_for, is_spoofable, port_text};

/// Fields that say how long a body is, or how to send it, which is not the one that the auth server gets.
const OF_THE_BODY: [&str; 4] = ["content-length", "expect", "trailer", "transfer-encoding"];

const PROXY_AUTHORIZATION: &str = "proxy-authorization";

/// What a trusted proxy says of the client beside what [`ForwardAuth::forwarded`] sees to.
const SAID_BY_PROXIES: [&str; 5] = [
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info",
    "x-real-ip",
];

impl ForwardAuth {
    /// Fills `question` with what the auth server is told of `x`, and of a body of so many bytes that follows.
    pub(crate) fn question(&self, x: &Exchange, question: &mut Head, body: usize) {
        let options = &self.options;
        question.clear();
        question.set_method(if options.preserve_request_method { x.head.method() } else { "GET" });
        question.set_target(&options.target);
        question.append("Host", self.server.endpoint.authority.as_bytes());
        let chosen = |name: &str| {
            let listed = &options.auth_request_headers;
            listed.is_empty() || listed.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        let told = |name: &str| {
            options.trust_forward_header == Some(true)
                && SAID_BY_PROXIES.iter().any(|known| known.eq_ignore_ascii_case(name))
        };
        for (name, value) in x.head.iter() {
            let own = || name.eq_ignore_ascii_case("host") || is_of_the_body(name);
            let vouched = options.trust_forward_header != Some(false) || !is_spoofable(name.as_bytes());
            if (chosen(name) || told(name)) && vouched && !own() {
                question.append(name, value);
            }
        }
        lb_http1::remove_hop_by_hop(question);
        if chosen(PROXY_AUTHORIZATION) {
            // It may be this server that it is for.
            x.head
                .get_all(PROXY_AUTHORIZATION)
                .for_each(|value| question.append("Proxy-Authorization", value));
        }
        self.forwarded(x, question);
        if body > 0 {
            question.append("Content-Length", body.to_string().as_bytes());
        } else if matches!(question.method(), "POST" | "PUT" | "PATCH") {
            // RFC 9110 section 8.6: some servers answer 411 otherwise.
            question.append("Content-Length", b"0");
        }
    }

    /// `X-Forwarded-*`, whatever `authRequestHeaders` lists: what the client's side has said before counts only with
    /// `trustForwardHeader: true`.
    fn forwarded(&self, x: &Exchange, question: &mut Head) {
        let trust = self.options.trust_forward_header;
        let host = x.head.get("host").unwrap_or_default();
        let mut say = |name: &str, lower: &str, value: &[u8]| {
            let believed = x.head.get(lower).filter(|said| trust == Some(true) && !said.is_empty());
            match believed.unwrap_or(value) {
                b"" => drop(question.remove(lower)),
                value => question.set(name, value),
            }
        };
        say("X-Forwarded-Method", "x-forwarded-method", x.head.method().as_bytes());
        say("X-Forwarded-Proto", "x-forwarded-proto", if x.peer.secure { b"https" } else { b"http" });
        say("X-Forwarded-Host", "x-forwarded-host", host);
        let target = x.head.target_bytes();
        // A stripped prefix was perhaps all of the path.
        let slash: &[u8] = if target.first() == Some(&b'/') { b"" } else { b"/" };
        say("X-Forwarded-Uri", "x-forwarded-uri", &[slash, target].concat());
        if trust.is_some() {
            // Without it, what the entry point has said stays as it is.
            say("X-Forwarded-Port", "x-forwarded-port", port_text(host, x.peer.secure));
        }
        question.remove("x-forwarded-for");
        if trust == Some(true) {
            x.head.get_all("x-forwarded-for").for_each(|line| question.append("X-Forwarded-For", line));
        }
        append_forwarded_for(question, &x.peer);
    }
}

fn is_of_the_body(name: &str) -> bool {
    OF_THE_BODY.iter().any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{auth, exchange, texts};
    use super::*;

    fn asked(options: &str, fields: &[(&str, &str)], body: usize) -> (String, Vec<String>) {
        let mut question = Head::new();
        auth(options).question(&exchange(fields), &mut question, body);
        (format!("{} {}", question.method(), question.target()), texts(&question))
    }

    const FORWARDED: [(&str, &str); 8] = [
        ("Host", "h.test:81"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "other"),
        ("X-Forwarded-Port", "99"),
        ("X-Forwarded-Uri", "/said"),
        ("X-Forwarded-Prefix", "/p"),
        ("X-Real-Ip", "9.9.9.9"),
    ];

    /// As real Traefik asked in the three modes.
    #[test]
    fn trust_decides_what_is_said_of_the_client() {
        let (_, mut trusted) = asked("trustForwardHeader: true", &FORWARDED, 0);
        trusted.sort();
        assert_eq!(
            trusted,
            [
                "Host: auth:9",
                "X-Forwarded-For: 1.2.3.4, 192.0.2.7",
                "X-Forwarded-Host: other",
                "X-Forwarded-Method: POST",
                "X-Forwarded-Port: 99",
                "X-Forwarded-Prefix: /p",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Uri: /said",
                "X-Real-Ip: 9.9.9.9",
            ]
        );
        let own = [
            "Host: auth:9",
            "X-Forwarded-For: 192.0.2.7",
            "X-Forwarded-Host: h.test:81",
            "X-Forwarded-Method: POST",
            "X-Forwarded-Port: 81",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Uri: /a?b",
        ];
        let (_, mut untrusted) = asked("trustForwardHeader: false", &FORWARDED, 0);
        untrusted.sort();
        assert_eq!(untrusted, own);
        let (_, mut unsaid) = asked("", &FORWARDED, 0);
        unsaid.sort();
        let mut expected: Vec<_> = own.iter().map(|line| line.replace("Port: 81", "Port: 99")).collect();
        expected.extend(["X-Forwarded-Prefix: /p".to_owned(), "X-Real-Ip: 9.9.9.9".to_owned()]);
        expected.sort();
        assert_eq!(unsaid, expected);
    }

    #[test]
    fn listed_fields_go_whatever_their_case_and_no_others() {
        let fields = [
            ("Host", "h"),
            ("Cookie", "a=b"),
            ("X-A", "1"),
            ("x-a", "2"),
            ("X-B", "3"),
            ("Proxy-Authorization", "p"),
        ];
        let (line, told) = asked("authRequestHeaders: [x-A, cookie]", &fields, 0);
        assert_eq!(
            (line.as_str(), &told[..4]),
            ("GET /v?x=1", &["Host: auth:9", "Cookie: a=b", "X-A: 1", "x-a: 2"].map(str::to_owned)[..])
        );
        assert!(told[4..].iter().all(|field| field.starts_with("X-Forwarded-")), "{told:?}");
        let (_, told) = asked("", &fields, 0);
        assert!(told.contains(&"Proxy-Authorization: p".to_owned()), "{told:?}");
    }

    #[test]
    fn the_uri_is_one_and_who_is_trusted_names_the_client() {
        let mut x = exchange(&[("Host", "h"), ("X-Real-Ip", "9.9.9.9")]);
        x.head.set_target("?all=stripped");
        let mut question = Head::new();
        for (trust, real) in [("true", Some("9.9.9.9")), ("false", None)] {
            let options = format!("trustForwardHeader: {trust}, authRequestHeaders: [Cookie]");
            auth(&options).question(&x, &mut question, 0);
            assert_eq!(question.get_str("x-forwarded-uri"), Some("/?all=stripped"));
            assert_eq!(question.get_str("x-real-ip"), real, "{trust}");
        }
    }

    /// As real Traefik asked.
    #[test]
    fn what_a_trusted_proxy_says_goes_whatever_is_listed() {
        let fields = [
            ("Host", "h"),
            ("X-Forwarded-Prefix", "/p"),
            ("X-Forwarded-Server", "lb"),
            ("X-Forwarded-Tls-Client-Cert", "c"),
            ("X-Forwarded-Tls-Client-Cert-Info", "i"),
            ("X-Forwarded-User", "u"),
            ("Cookie", "a=b"),
        ];
        let told = |trust: &str| {
            let (_, told) = asked(&format!("{trust} authRequestHeaders: [X-A]"), &fields, 0);
            let of_this = ["Prefix", "Server", "Cert", "Info", "User", "Cookie"];
            told.into_iter().filter(|f| of_this.iter().any(|part| f.contains(part))).collect::<Vec<_>>()
        };
        assert_eq!(
            told("trustForwardHeader: true,"),
            [
                "X-Forwarded-Prefix: /p",
                "X-Forwarded-Server: lb",
                "X-Forwarded-Tls-Client-Cert: c",
                "X-Forwarded-Tls-Client-Cert-Info: i"
            ]
        );
        assert!(told("trustForwardHeader: false,").is_empty() && told("").is_empty());
    }

    #[test]
    fn the_body_is_the_one_that_follows() {
        let fields = [
            ("Host", "h"),
            ("Content-Length", "70"),
            ("Expect", "100-continue"),
            ("Transfer-Encoding", "chunked"),
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
        ];
        let (_, told) = asked("", &fields, 0);
        let of_the_body =
            |told: &[String]| told.iter().filter(|f| !f.starts_with("X-F")).cloned().collect::<Vec<_>>();
        assert_eq!(of_the_body(&told), ["Host: auth:9"]);
        let (line, told) = asked("forwardBody: true, preserveRequestMethod: true", &fields, 5);
        assert_eq!(
            (line.as_str(), of_the_body(&told)),
            ("POST /v?x=1", vec!["Host: auth:9".to_owned(), "Content-Length: 5".to_owned()])
        );
    }
}
