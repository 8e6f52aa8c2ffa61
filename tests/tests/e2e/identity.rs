//! Who the client is: `digestAuth`, and `passTLSClientCert` for the servers.

use lb_testkit::{Authority, Files, H2Client, Origin, PATIENCE, Response, eventually};
use md5::{Digest, Md5};

use crate::harness::{Connection, HOST, Protocol, STATIC_TLS, Vigie};
use crate::middlewares::behind;

fn md5(text: &str) -> String {
    Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A user of `digestAuth` as browsers are one: what the last challenge said, and how often it was answered.
struct User {
    password: &'static str,
    nonce: String,
    opaque: String,
    count: u32,
}

impl User {
    /// After a first request without anything.
    async fn new(password: &'static str, connection: &mut Connection) -> Self {
        let mut user = Self { password, nonce: String::new(), opaque: String::new(), count: 0 };
        user.learn(&connection.request("GET", "/x", &[], None).await);
        user
    }

    /// Reads a challenge; whether it says that only the nonce was wrong.
    fn learn(&mut self, refused: &Response) -> bool {
        assert_eq!((refused.status, refused.text()), (401, "401 Unauthorized\n"));
        let challenge = refused.get("www-authenticate").unwrap();
        let value = |name: &str| {
            let (_, rest) = challenge.split_once(&format!("{name}=\"")).unwrap();
            rest.split('"').next().unwrap().to_owned()
        };
        assert!(challenge.starts_with("Digest realm=\"staff\", nonce=\""), "{challenge}");
        assert!(challenge.ends_with("algorithm=\"MD5\", qop=\"auth\""), "{challenge}");
        (self.nonce, self.opaque, self.count) = (value("nonce"), value("opaque"), 0);
        challenge.contains("stale=\"true\"")
    }

    fn field(&self, method: &str, target: &str) -> String {
        let Self { password, nonce, opaque, count } = self;
        let secret = md5(&format!("someone:staff:{password}"));
        let asked = md5(&format!("{method}:{target}"));
        let response = md5(&format!("{secret}:{nonce}:{count:08x}:own:auth:{asked}"));
        format!(
            "Digest username=\"someone\", realm=\"staff\", nonce=\"{nonce}\", uri=\"{target}\", algorithm=MD5, qop=auth, \
             nc={count:08x}, cnonce=\"own\", response=\"{response}\", opaque=\"{opaque}\""
        )
    }

    async fn ask(&mut self, connection: &mut Connection, method: &str, target: &str) -> Response {
        self.count += 1;
        let field = self.field(method, target);
        connection.request(method, target, &[("authorization", &field), ("x_user", "root")], None).await
    }
}

#[tokio::test]
async fn digests_let_in_who_knows_the_password_and_outlive_a_reload() {
    let server = Origin::start("api").await;
    let files = Files::new();
    files.write("users", &format!("# the only one\nsomeone:staff:{}\n", md5("someone:staff:secret")));
    let auth = "auth: {digestAuth: {usersFile: '{dir}/users', realm: staff, headerField: X-User, removeHeader: true}}";
    let text = behind("auth", auth, &[server.url()]);
    let log = "accessLog: {format: json}\n";
    let vigie = Vigie::over(files, &format!("{}{log}", crate::harness::STATIC), &text).await;
    for protocol in Protocol::BOTH {
        let mut connection = protocol.connect(vigie.web()).await;
        let mut user = User::new("secret", &mut connection).await;
        for method in ["GET", "DELETE"] {
            assert_eq!(user.ask(&mut connection, method, "/x?a=b").await.status, 200, "{protocol:?}");
            let seen = server.last();
            assert_eq!((seen.get("x-user"), seen.get("x_user")), (Some("someone"), None));
            assert_eq!(seen.get("authorization"), None);
        }
        // The same once more, and one that was overtaken.
        let before = server.requests();
        let mut replayed = User { count: 1, nonce: user.nonce.clone(), opaque: user.opaque.clone(), ..user };
        let refused = replayed.ask(&mut connection, "DELETE", "/x?a=b").await;
        assert!(!replayed.learn(&refused), "{protocol:?}: a replay is not told to try again");
        let mut late = User { count: 0, nonce: user.nonce.clone(), opaque: user.opaque.clone(), ..user };
        let refused = late.ask(&mut connection, "GET", "/x").await;
        assert!(late.learn(&refused), "{protocol:?}");
        assert_eq!(late.ask(&mut connection, "GET", "/x").await.status, 200);
        let mut stranger = User::new("guessed", &mut connection).await;
        let refused = stranger.ask(&mut connection, "GET", "/x").await;
        assert!(!stranger.learn(&refused), "{protocol:?}");
        assert_eq!(server.requests(), before + 1);
    }
    vigie.until_said("\"ClientUsername\":\"someone\"").await;

    // A reload of something else leaves the nonces, also those in use.
    let mut connection = Protocol::Http1.connect(vigie.web()).await;
    let mut user = User::new("secret", &mut connection).await;
    assert_eq!(user.ask(&mut connection, "GET", "/x").await.status, 200);
    vigie.write(
        &text.replace("  routers:\n", "  routers:\n    b: {rule: 'Path(`/b`)', service: noop@internal}\n"),
    );
    let live = async || vigie.json("/api/rawdata").await["routers"]["b@file"].is_object();
    assert!(eventually(PATIENCE, live).await);
    let mut replayed = User { count: 0, nonce: user.nonce.clone(), opaque: user.opaque.clone(), ..user };
    assert_eq!(replayed.ask(&mut connection, "GET", "/x").await.status, 401);
    assert_eq!(user.ask(&mut connection, "GET", "/x").await.status, 200);
    let shown = vigie.json("/api/http/middlewares/auth@file").await;
    assert_eq!((&shown["type"], &shown["digestAuth"]["users"][0]), (&"digestauth".into(), &"xxxx".into()));
}

#[tokio::test]
async fn servers_learn_who_has_shown_a_certificate() {
    let (authority, people) = (Authority::new("servers"), Authority::new("people, all"));
    let files = Files::new();
    files.write("people.pem", people.pem());
    authority.issue(&[HOST]).write(files.path(), "site");
    let server = Origin::start("api").await;
    let pass = "pass: {passTLSClientCert: {pem: true, info: {subject: {commonName: true, organization: true}, \
                issuer: {commonName: true}}}}";
    let dynamic = format!(
        "{}tls:\n  certificates: [{{certFile: '{{dir}}/site.crt', keyFile: '{{dir}}/site.key'}}]\n  options: \
         {{default: {{clientAuth: {{caFiles: ['{{dir}}/people.pem'], clientAuthType: VerifyClientCertIfGiven}}}}}}\n",
        behind("pass", pass, &[server.url()])
    );
    let vigie = Vigie::over(files, STATIC_TLS, &dynamic).await;
    let someone = people.issue_client("some one & co");
    let (web, tls) = (vigie.web(), vigie.websecure());
    let spoofed = [("x-forwarded-tls-client-cert", "me"), ("x-forwarded-tls-client-cert-info", "me")];
    for offer in ["http/1.1", "h2"] {
        let ask = async |config| {
            let mut connection = match offer {
                "h2" => Connection::Http2(H2Client::connect_tls(tls, config, HOST).await.unwrap()),
                _ => Connection::Http1(lb_testkit::Client::connect_tls(tls, config, HOST).await.unwrap()),
            };
            for _ in 0..2 {
                assert_eq!(connection.request("GET", "/", &spoofed, None).await.status, 200);
            }
            let seen = server.last();
            let get = |name| seen.get(name).map(str::to_owned);
            (get("x-forwarded-tls-client-cert"), get("x-forwarded-tls-client-cert-info"))
        };
        let (pem, info) = ask(authority.client_config_with(&[offer], &someone)).await;
        let body = |pem: &str| pem.lines().filter(|line| !line.starts_with("-----")).collect::<String>();
        let chain = format!("{},{}", body(&someone.certificate_pem), body(people.pem()));
        assert_eq!(pem.as_deref(), Some(chain.as_str()), "{offer}");
        let expected = "Subject%3D%22CN%3Dsome+one+%26+co%22%3BIssuer%3D%22CN%3Dpeople%2C+all%22%2C\
                        Subject%3D%22CN%3Dpeople%2C+all%22%3BIssuer%3D%22CN%3Dpeople%2C+all%22";
        assert_eq!(info.as_deref(), Some(expected), "{offer}");
        assert_eq!(ask(authority.client_config(&[offer])).await, (None, None), "{offer}");
    }
    let mut plain = Protocol::Http1.connect(web).await;
    assert_eq!(plain.request("GET", "/", &spoofed, None).await.status, 200);
    assert_eq!(server.last().get("x-forwarded-tls-client-cert"), None);
}

/// NTLM makes a connection its user's: on that of one client's handshake nobody else may come, and its own requests have to.
#[tokio::test]
async fn a_connection_that_a_user_has_authenticated_is_for_that_client_alone() {
    let server = Origin::start("intranet").await;
    let vigie = Vigie::start(&crate::harness::app("", &[server.url()])).await;
    for protocol in Protocol::BOTH {
        for scheme in ["NTLM", "negotiate"] {
            let mut user = protocol.connect(vigie.web()).await;
            let credentials = format!("{scheme} TlRMTVNTUAADAAAA");
            user.request("GET", "/", &[("authorization", &credentials)], None).await;
            let own = server.last().connection;
            // Several, so that each worker has some.
            for _ in 0..6 {
                let mut stranger = protocol.connect(vigie.web()).await;
                for _ in 0..2 {
                    stranger.request("GET", "/", &[("authorization", "Basic dTpw")], None).await;
                    assert_ne!(server.last().connection, own, "{protocol:?}: taken for the user");
                }
                user.request("GET", "/", &[], None).await;
                assert_eq!(server.last().connection, own, "{protocol:?}: the user is not known there");
            }
            let before = server.open_connections();
            drop(user);
            let gone = eventually(PATIENCE, async || server.open_connections() < before).await;
            assert!(gone, "{protocol:?}: it outlives its client");
        }
    }
}
