//! Certificates over DNS-01: a real BIND has the zones, Pebble asks it, and Vigie has records set there.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use lb_testkit::{Files, Origin, VigieProcess, eventually, reserve_address};

use super::authority::Authority;
use super::{LONG, ORDER, shown, until_shown, vigie_renewed};
use crate::harness::{Vigie, binary};

const SECRET: &str = "c2VjcmV0c2VjcmV0c2VjcmV0";

/// BIND with `example.com`, where the challenge of `alias.example.com` is kept under another name. Who has the key
/// `vigie.` may change texts.
struct NameServer {
    address: SocketAddr,
    files: Files,
    process: VigieProcess,
}

impl NameServer {
    async fn start() -> Self {
        let (address, files) = (reserve_address(), Files::new());
        let mut config = format!(
            "options {{ directory {:?}; pid-file none; session-keyfile none; recursion no; notify no; \
             listen-on port {} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; }};\ncontrols {{ }};\n\
             key \"vigie.\" {{ algorithm hmac-sha256; secret {SECRET:?}; }};\n",
            files.path(),
            address.port(),
        );
        config += "zone \"example.com\" { type primary; file \"zone\"; update-policy { grant vigie. zonesub TXT; }; };\n";
        let alias = "_acme-challenge.alias CNAME alias.challenges";
        files.write("zone", &format!("$TTL 1\n@ SOA ns a 1 60 60 600 1\n@ NS ns\nns A 127.0.0.1\n{alias}\n"));
        let config = files.write("named.conf", &config);
        // In the foreground, as whoever runs the test.
        let mut command = Command::new("named");
        command.args(["-g", "-n", "1", "-c"]).arg(config);
        let mut process = VigieProcess::spawn(&mut command).expect("bind9 is installed");
        process.wait_ready(address).await.unwrap();
        Self { address, files, process }
    }

    /// The updates that it has taken, oldest first: what was done to which name.
    fn updates(&self) -> Vec<String> {
        let said = format!("{}{}", self.process.stdout(), self.process.stderr());
        let line = |line: &str| {
            let (what, rest) = line.split_once("ing an RR at ")?;
            let what = if what.ends_with("add") { "+" } else { "-" };
            Some(format!("{what}{}", rest.split(['\'', ' ']).find(|word| !word.is_empty())?))
        };
        said.lines().filter_map(line).collect()
    }

    /// The keys of a resolver that has records set by `provider` and looks for them here.
    fn challenge(&self, provider: &str) -> String {
        format!(
            "dnsChallenge: {{provider: {provider}, resolvers: ['{}'], \
             propagation: {{disableANSChecks: true, requireAllRNS: true}}}}",
            self.address
        )
    }

    fn variables(&self, secret: &'static str) -> Vec<(&'static str, String)> {
        vec![
            ("RFC2136_NAMESERVER", self.address.to_string()),
            ("RFC2136_TSIG_KEY", "vigie.".to_owned()),
            ("RFC2136_TSIG_ALGORITHM", "hmac-sha256.".to_owned()),
            ("RFC2136_TSIG_SECRET", secret.to_owned()),
            ("RFC2136_POLLING_INTERVAL", "0".to_owned()),
            ("EXEC_PATH", self.files.path().join("hook").display().to_string()),
            ("EXEC_POLLING_INTERVAL", "0".to_owned()),
            ("EXEC_SEQUENCE_INTERVAL", "0".to_owned()),
        ]
    }

    /// A program that replaces the text of a name, as most do.
    fn write_hook(&self) {
        let script = format!(
            "#!/bin/sh\nset -eu\nadd=\"\"\n[ \"$1\" = cleanup ] || add=\"update add $2 1 TXT $3\"\n\
             printf 'server 127.0.0.1 {}\\nupdate delete %s TXT\\n%s\\nsend\\n' \"$2\" \"$add\" |\n  \
             nsupdate -y hmac-sha256:vigie.:{SECRET}\n",
            self.address.port()
        );
        let path = self.files.write("hook", &script);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Routers that want these certificates of these resolvers.
fn dynamic(server: &str, wanted: &[(&str, &[&str])]) -> String {
    let mut text = "http:\n  routers:\n".to_owned();
    for (index, (resolver, names)) in wanted.iter().enumerate() {
        text += &format!(
            "    r{index}: {{rule: 'PathPrefix(`/`)', service: s, entryPoints: [websecure], priority: {}, \
             tls: {{certResolver: {resolver}, domains: [{{main: '{}', sans: {:?}}}]}}}}\n",
            index + 1,
            names[0],
            &names[1..],
        );
    }
    text + &format!("  services: {{s: {{loadBalancer: {{servers: [{{url: '{server}'}}]}}}}}}\n")
}

async fn vigie(fixed: &str, dynamic: &str, variables: &[(&'static str, String)]) -> Vigie {
    let files = Files::new();
    files.write("dynamic.yml", dynamic);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Vigie::launch_in(files, fixed, &variables).await
}

#[tokio::test]
async fn a_wildcard_and_what_it_does_not_cover_are_one_order_and_renewed() {
    let names = NameServer::start().await;
    let authority = Authority::start_asking(Some(names.address), 12, "").await;
    let server = Origin::start("api").await;
    let fixed = authority.vigie(&[("dns", &names.challenge("rfc2136"))]);
    let wanted = dynamic(&server.url(), &[("dns", &["example.com", "*.example.com"])]);
    let vigie = vigie(&fixed, &wanted, &names.variables(SECRET)).await;
    let trust = authority.client_config().await;
    until_shown(&vigie, &trust, &["example.com", "any.example.com"]).await;
    assert_eq!(shown(&vigie, &trust, "a.any.example.com").await, None, "one label only");
    assert_eq!(vigie.json("/health").await["status"], "healthy");
    let kept = std::fs::read_to_string(vigie.files.path().join("acme.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let domain = serde_json::json!({ "main": "example.com", "sans": ["*.example.com"] });
    assert_eq!(kept["dns"]["Certificates"][0]["domain"], domain);
    vigie.until_said("A DNS record is set").await;
    vigie_renewed(&vigie, 1.0).await;
    let first = ["+", "+", "-", "-"].map(|what| format!("{what}_acme-challenge.example.com"));
    assert_eq!(names.updates()[..4], first, "both at once, and none is left");
    assert!(!vigie.words().contains(SECRET));
}

/// Two resolvers, one of which runs a program that can keep one text at a time; and a name whose challenges are elsewhere.
#[tokio::test]
async fn a_program_sets_one_record_after_the_other_where_aliases_lead_to() {
    let names = NameServer::start().await;
    names.write_hook();
    let authority = Authority::start_asking(Some(names.address), LONG, "").await;
    let server = Origin::start("api").await;
    let (exec, update) = (names.challenge("exec"), names.challenge("rfc2136"));
    let fixed = authority.vigie(&[("exec", &exec), ("dns", &update)]);
    let wanted: [(&str, &[&str]); 2] =
        [("exec", &["alias.example.com", "*.alias.example.com"]), ("dns", &["b.example.com"])];
    let vigie = vigie(&fixed, &dynamic(&server.url(), &wanted), &names.variables(SECRET)).await;
    let trust = authority.client_config().await;
    let hosts = ["alias.example.com", "x.alias.example.com", "b.example.com"];
    until_shown(&vigie, &trust, &hosts).await;
    assert_eq!(authority.orders(), 2, "{}", authority.words());
    let updates = names.updates();
    let of = |name: &str| updates.iter().filter(|update| update.ends_with(name)).count();
    assert!(
        of("+alias.challenges.example.com") == 2 && of("_acme-challenge.alias.example.com") == 0,
        "{updates:?}"
    );
}

#[tokio::test]
async fn a_provider_that_fails_is_told_with_the_reason() {
    let names = NameServer::start().await;
    let authority = Authority::start_asking(Some(names.address), LONG, "").await;
    let server = Origin::start("api").await;
    let resolvers = [("dns", names.challenge("rfc2136")), ("cf", names.challenge("cloudflare"))];
    let resolvers = resolvers.each_ref().map(|(name, keys)| (*name, keys.as_str()));
    let wanted = dynamic(&server.url(), &[("dns", &["*.example.com"]), ("cf", &["c.example.com"])]);
    let vigie = vigie(&authority.vigie(&resolvers), &wanted, &names.variables("b3RoZXI=")).await;
    let mut reasons = String::new();
    let told = eventually(ORDER, async || {
        reasons = vigie.json("/health").await["reasons"].to_string();
        reasons.contains("certResolver dns, *.example.com")
            && reasons.contains("certResolver cf, c.example.com")
    });
    assert!(told.await, "{reasons}");
    let rfc2136 =
        "rfc2136 does not set the record for example.com: the name server has another secret for the key";
    let cloudflare =
        "cloudflare: the environment lacks CF_DNS_API_TOKEN, or CF_API_EMAIL and CF_API_KEY; next try at";
    assert!(reasons.contains(rfc2136) && reasons.contains(cloudflare), "{reasons}");
    vigie.until_said("The DNS provider cannot be used").await;
    assert!(!vigie.words().contains("b3RoZXI"), "{}", vigie.words());

    // The check sees the same of its own environment, which may not be that of the service.
    let config = vigie.files.path().join("vigie.yml");
    let checked =
        Command::new(binary()).arg("check").arg(format!("--configFile={}", config.display())).output();
    let checked = checked.unwrap();
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    assert!(said.contains("cf.acme.dnsChallenge.provider: cloudflare: the environment lacks"), "{said}");
}
