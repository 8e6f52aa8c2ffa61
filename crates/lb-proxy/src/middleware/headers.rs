//! `headers`: custom fields, CORS and security fields.

use lb_config::dynamic as config;
use lb_core::route::go_regex;
use regex::Regex;

use super::Step;
use crate::exchange::Exchange;
use crate::http::local::Local;

pub(crate) struct Headers {
    options: config::Headers,
    origins: Vec<Regex>,
    cors: bool,
    /// Security fields whose value depends on nothing.
    constant: Vec<(&'static str, String)>,
    sts: Option<String>,
    methods: String,
    headers: String,
    exposed: String,
}

impl Headers {
    pub(crate) fn new(options: &config::Headers) -> Result<Self, String> {
        let origins = options
            .access_control_allow_origin_list_regex
            .iter()
            .map(|text| go_regex(text))
            .collect::<Result<_, _>>()?;
        let cors = !options.access_control_allow_origin_list.is_empty()
            || !options.access_control_allow_origin_list_regex.is_empty()
            || !options.access_control_allow_methods.is_empty()
            || !options.access_control_allow_headers.is_empty()
            || !options.access_control_expose_headers.is_empty()
            || options.access_control_allow_credentials
            || options.access_control_max_age.is_some()
            || options.add_vary_header;
        let mut constant = Vec::new();
        let mut add = |name, value: &str| {
            if !value.is_empty() {
                constant.push((name, value.to_owned()));
            }
        };
        let frame = if options.frame_deny { "DENY" } else { "" };
        let frame =
            Some(options.custom_frame_options_value.as_str()).filter(|v| !v.is_empty()).unwrap_or(frame);
        add("X-Frame-Options", frame);
        add("X-Content-Type-Options", if options.content_type_nosniff { "nosniff" } else { "" });
        let xss = if options.browser_xss_filter { "1; mode=block" } else { "" };
        let xss = Some(options.custom_browser_xss_value.as_str()).filter(|v| !v.is_empty()).unwrap_or(xss);
        add("X-XSS-Protection", xss);
        add("Referrer-Policy", &options.referrer_policy);
        add("Permissions-Policy", &options.permissions_policy);
        let sts = (options.sts_seconds > 0).then(|| {
            let subdomains = if options.sts_include_subdomains { "; includeSubDomains" } else { "" };
            let preload = if options.sts_preload { "; preload" } else { "" };
            format!("max-age={}{subdomains}{preload}", options.sts_seconds)
        });
        Ok(Self {
            origins,
            cors,
            constant,
            sts,
            methods: options.access_control_allow_methods.join(","),
            headers: options.access_control_allow_headers.join(","),
            exposed: options.access_control_expose_headers.join(","),
            options: {
                let mut options = options.clone();
                options.custom_request_headers.retain(|(name, _)| !frames(name));
                options.custom_response_headers.retain(|(name, _)| !frames(name));
                options
            },
        })
    }

    pub(crate) fn on_request(&self, x: &mut Exchange) -> Step {
        if self.cors
            && x.head.method() == "OPTIONS"
            && let (Some(origin), Some(method)) =
                (x.head.get_str("origin"), x.head.get_str("access-control-request-method"))
            && !origin.is_empty()
            && !method.is_empty()
        {
            return Step::Respond(self.preflight(x, origin, method));
        }
        for (name, value) in &self.options.custom_request_headers {
            if name.eq_ignore_ascii_case("x-forwarded-for") && value.is_empty() {
                x.append_forwarded_for = false;
            }
            match value.as_str() {
                "" if name.eq_ignore_ascii_case("host") => {}
                "" => {
                    x.head.remove(&name.to_ascii_lowercase());
                }
                value => x.head.set(name, value.as_bytes()),
            }
        }
        if self.cors {
            x.origin.clear();
            x.origin.push_str(x.head.get_str("origin").unwrap_or_default());
        }
        if !self.is_host_allowed(x) {
            return self.bad_host(x);
        }
        Step::Next
    }

    fn is_host_allowed(&self, x: &Exchange) -> bool {
        let options = &self.options;
        if options.is_development || options.allowed_hosts.is_empty() {
            return true;
        }
        let proxied = options
            .hosts_proxy_headers
            .iter()
            .find_map(|name| x.head.get_str(&name.to_ascii_lowercase()).filter(|value| !value.is_empty()));
        let host = proxied.or_else(|| x.head.get_str("host")).unwrap_or_default();
        options.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }

    /// The security part refuses; the custom and CORS fields, which are outside of it, are added still.
    fn bad_host(&self, x: &mut Exchange) -> Step {
        let local = Local::plain(500, "Bad Host");
        local.write_head(&mut x.response);
        self.outer_fields(x);
        Step::Answered(local.body)
    }

    /// The preflight is answered here, even for an origin that gets nothing.
    fn preflight(&self, x: &Exchange, origin: &str, method: &str) -> Local {
        let options = &self.options;
        let credentials = options.access_control_allow_credentials;
        let mut local = Local::bare(200);
        if credentials {
            local = local.with("Access-Control-Allow-Credentials", "true");
        }
        let wild = |items: &[String], list: &str, asked: &str| {
            if credentials && is_wild(items) { asked.to_owned() } else { list.to_owned() }
        };
        let asked = x.head.get_str("access-control-request-headers").unwrap_or_default();
        for (name, value) in [
            (
                "Access-Control-Allow-Headers",
                wild(&options.access_control_allow_headers, &self.headers, asked),
            ),
            (
                "Access-Control-Allow-Methods",
                wild(&options.access_control_allow_methods, &self.methods, method),
            ),
            ("Access-Control-Allow-Origin", self.allowed_origin(origin).unwrap_or_default()),
        ] {
            if !value.is_empty() {
                local = local.with(name, value);
            }
        }
        if let Some(seconds) = self.options.access_control_max_age {
            local = local.with("Access-Control-Max-Age", seconds.to_string());
        }
        if let Some(exposed) = self.exposed() {
            local = local.with("Access-Control-Expose-Headers", exposed.to_owned());
        }
        local
    }

    /// What `Access-Control-Allow-Origin` says to `origin`; empty when there was none.
    fn allowed_origin(&self, origin: &str) -> Option<String> {
        for allowed in &self.options.access_control_allow_origin_list {
            if allowed == "*" {
                let echo = self.options.access_control_allow_credentials && !origin.is_empty();
                return Some(if echo { origin.to_owned() } else { "*".to_owned() });
            }
            if !origin.is_empty() && allowed == origin {
                return Some(origin.to_owned());
            }
        }
        (!origin.is_empty() && self.origins.iter().any(|regex| regex.is_match(origin)))
            .then(|| origin.to_owned())
    }

    fn exposed(&self) -> Option<&str> {
        let options = &self.options;
        let wild = is_wild(&options.access_control_expose_headers);
        let withheld = self.exposed.is_empty() || (options.access_control_allow_credentials && wild);
        (!withheld).then_some(&self.exposed)
    }

    pub(crate) fn on_response(&self, x: &mut Exchange) {
        for (name, value) in &self.constant {
            x.response.set(name, value.as_bytes());
        }
        self.security(x);
        self.outer_fields(x);
    }

    /// What the `custom…` and `accessControl…` options do to an answer.
    fn outer_fields(&self, x: &mut Exchange) {
        for (name, value) in &self.options.custom_response_headers {
            if value.is_empty() {
                x.response.remove(&name.to_ascii_lowercase());
            } else {
                x.response.set(name, value.as_bytes());
            }
        }
        if self.cors {
            self.cors_fields(x);
        }
    }

    fn security(&self, x: &mut Exchange) {
        let options = &self.options;
        if let Some(sts) = &self.sts
            && !options.is_development
            && (options.force_sts_header || x.peer.secure || self.is_proxied_secure(x))
        {
            x.response.set("Strict-Transport-Security", sts.as_bytes());
        }
        for (name, policy) in [
            ("Content-Security-Policy", &options.content_security_policy),
            ("Content-Security-Policy-Report-Only", &options.content_security_policy_report_only),
        ] {
            if policy.contains("$NONCE") {
                let nonce = format!("'nonce-{:032x}'", fastrand::u128(..));
                x.response.set(name, policy.replace("$NONCE", &nonce).as_bytes());
            } else if !policy.is_empty() {
                x.response.set(name, policy.as_bytes());
            }
        }
    }

    fn is_proxied_secure(&self, x: &Exchange) -> bool {
        let mut wanted = self.options.ssl_proxy_headers.iter();
        wanted.any(|(name, value)| x.head.get(&name.to_ascii_lowercase()) == Some(value.as_bytes()))
    }

    fn cors_fields(&self, x: &mut Exchange) {
        match self.allowed_origin(&x.origin) {
            // No origin asked and credentials are promised: nobody in particular is let in.
            Some(_) if x.origin.is_empty() && self.options.access_control_allow_credentials => {
                x.response.remove("access-control-allow-origin");
            }
            Some(origin) => x.response.set("Access-Control-Allow-Origin", origin.as_bytes()),
            None => {}
        }
        if self.options.access_control_allow_credentials {
            x.response.set("Access-Control-Allow-Credentials", b"true");
        }
        if let Some(exposed) = self.exposed() {
            x.response.set("Access-Control-Expose-Headers", exposed.as_bytes());
        }
        if self.options.add_vary_header {
            let listed = x.response.get_all("vary").any(|line| {
                line.split(|b| *b == b',').any(|item| item.trim_ascii().eq_ignore_ascii_case(b"origin"))
            });
            if !listed {
                let mut vary = x.response.get_all("vary").collect::<Vec<_>>();
                vary.push(b"Origin");
                let vary = vary.join(&b',');
                x.response.set("Vary", &vary);
            }
        }
    }
}

/// To browsers `*` means everything only where no credentials are sent: Fetch standard, CORS protocol.
fn is_wild(items: &[String]) -> bool {
    items.iter().any(|item| item == "*")
}

/// Fields that say where a message ends. They are not an operator's to set: a server would wait for a body that never
/// comes, or take the next request for one.
fn frames(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::http::forwarded::Peer;

    fn exchange(method: &str, fields: &[(&str, &str)]) -> Exchange {
        let peer = Peer::new([192, 0, 2, 1].into(), false);
        let mut x = Exchange::new(Rc::new(peer), tokio::time::Instant::now().into_std());
        x.head.set_method(method);
        x.head.set_target("/");
        for (name, value) in fields {
            x.head.append(name, value.as_bytes());
        }
        x
    }

    fn custom(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_refused_host_gets_the_custom_fields_and_none_of_security() {
        let headers = Headers::new(&config::Headers {
            allowed_hosts: vec!["good.test".into()],
            frame_deny: true,
            custom_response_headers: custom(&[("X-Resp", "v"), ("Content-Length", "9")]),
            ..config::Headers::default()
        })
        .unwrap();
        let mut x = exchange("GET", &[("Host", "bad.test")]);
        let Step::Answered(body) = headers.on_request(&mut x) else { panic!("let through") };
        assert_eq!(&*body, b"Bad Host\n");
        assert_eq!(x.response.status(), 500);
        assert_eq!(x.response.get("x-resp"), Some(&b"v"[..]));
        assert_eq!(x.response.get("x-frame-options"), None);
        assert_eq!(
            x.response.get("content-length"),
            Some(&b"9"[..]),
            "the length of `Bad Host` and its line end"
        );
        assert!(matches!(headers.on_request(&mut exchange("GET", &[("Host", "Good.test")])), Step::Next));
    }

    #[test]
    fn nobody_changes_how_a_message_is_framed() {
        let headers = Headers::new(&config::Headers {
            custom_request_headers: custom(&[
                ("content-length", "99"),
                ("Transfer-Encoding", "x"),
                ("A", "b"),
            ]),
            ..config::Headers::default()
        })
        .unwrap();
        let mut x = exchange("POST", &[("Content-Length", "2")]);
        assert!(matches!(headers.on_request(&mut x), Step::Next));
        assert_eq!(x.head.get("content-length"), Some(&b"2"[..]));
        assert_eq!(x.head.get("transfer-encoding"), None);
        assert_eq!(x.head.get("a"), Some(&b"b"[..]));
    }

    #[test]
    fn a_preflight_is_told_its_age_if_one_is_set() {
        for (age, expected) in [(None, None), (Some(0), Some("0")), (Some(60), Some("60"))] {
            let options = config::Headers {
                add_vary_header: true,
                access_control_max_age: age,
                ..config::Headers::default()
            };
            let fields = [("Origin", "https://a.test"), ("Access-Control-Request-Method", "PUT")];
            let mut x = exchange("OPTIONS", &fields);
            let Step::Respond(local) = Headers::new(&options).unwrap().on_request(&mut x) else {
                panic!("let through")
            };
            local.write_head(&mut x.response);
            assert_eq!(x.response.get_str("access-control-max-age"), expected, "{age:?}");
        }
    }

    #[test]
    fn with_credentials_a_star_among_others_echoes_what_is_asked() {
        let list = ["X-A", "*"].map(str::to_owned).to_vec();
        for (credentials, expected) in [
            (true, [Some("x, y"), Some("PUT"), None]),
            (false, [Some("X-A,*"), Some("X-A,*"), Some("X-A,*")]),
        ] {
            let headers = Headers::new(&config::Headers {
                access_control_allow_credentials: credentials,
                access_control_allow_headers: list.clone(),
                access_control_allow_methods: list.clone(),
                access_control_expose_headers: list.clone(),
                ..config::Headers::default()
            })
            .unwrap();
            let fields = [
                ("Origin", "https://a.test"),
                ("Access-Control-Request-Method", "PUT"),
                ("Access-Control-Request-Headers", "x, y"),
            ];
            let mut x = exchange("OPTIONS", &fields);
            let Step::Respond(local) = headers.on_request(&mut x) else { panic!("let through") };
            local.write_head(&mut x.response);
            let names = ["allow-headers", "allow-methods", "expose-headers"];
            let said = names.map(|name| x.response.get_str(&format!("access-control-{name}")));
            assert_eq!(said, expected, "{credentials}");
        }
    }

    #[test]
    fn cors_answers_preflights_and_joins_vary() {
        let headers = Headers::new(&config::Headers {
            access_control_allow_origin_list: vec!["*".into()],
            access_control_allow_credentials: true,
            add_vary_header: true,
            ..config::Headers::default()
        })
        .unwrap();
        let preflight = |origin, method| {
            let fields = [("Origin", origin), ("Access-Control-Request-Method", method)];
            matches!(headers.on_request(&mut exchange("OPTIONS", &fields)), Step::Respond(_))
        };
        assert!(preflight("https://a.test", "PUT"));
        assert!(!preflight("", "PUT") && !preflight("https://a.test", ""), "an empty field is none");

        for (origin, vary, allowed, joined) in [
            ("https://a.test", "Accept", Some("https://a.test"), "Accept,Origin"),
            ("", "origin", None, "origin"),
        ] {
            let mut x = exchange("GET", &[("Origin", origin)]);
            assert!(matches!(headers.on_request(&mut x), Step::Next));
            x.response.append("Access-Control-Allow-Origin", b"server's");
            x.response.append("Vary", vary.as_bytes());
            headers.on_response(&mut x);
            assert_eq!(x.response.get_str("access-control-allow-origin"), allowed);
            assert_eq!(x.response.get_str("vary"), Some(joined));
        }
    }
}
