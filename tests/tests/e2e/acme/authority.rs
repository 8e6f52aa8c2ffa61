//! Pebble, a real ACME server, with the name server that it asks, on loopback.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use lb_testkit::{Client, Files, PATIENCE, VigieProcess, eventually, reserve_address};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// An authority that validates over the two entry points that it is told of.
pub(super) struct Authority {
    pub(super) address: SocketAddr,
    management: SocketAddr,
    pub(super) web: SocketAddr,
    pub(super) websecure: SocketAddr,
    files: Files,
    /// Signs the certificate of the server itself.
    own: lb_testkit::Authority,
    _names: VigieProcess,
    pebble: VigieProcess,
}

impl Authority {
    /// Its certificates are valid for so many seconds. `more` are further keys of its configuration.
    pub(super) async fn start(valid: u32, more: &str) -> Self {
        Self::start_asking(None, valid, more).await
    }

    /// As [`start`](Self::start), asking a name server of the test's.
    pub(super) async fn start_asking(asked: Option<SocketAddr>, valid: u32, more: &str) -> Self {
        let [address, management, web, websecure, names, control] =
            std::array::from_fn(|_| reserve_address());
        let (files, own) = (Files::new(), lb_testkit::Authority::new("pebble"));
        let (certificate, key) = own.issue(&["127.0.0.1"]).write(files.path(), "pebble");
        std::fs::write(files.path().join("ca.pem"), own.pem()).unwrap();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "{address}", "managementListenAddress": "{management}",
                "certificate": {certificate:?}, "privateKey": {key:?}, "httpPort": {}, "tlsPort": {},
                "ocspResponderURL": "", "certificateValidityPeriod": {valid} {more}}}}}"#,
            web.port(),
            websecure.port(),
        );
        let config = files.write("pebble.json", &config);
        // Every name is at 127.0.0.1.
        let mut command = Command::new("pebble-challtestsrv");
        command.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""]);
        command.args(["-tlsalpn01", "", "-dns01", &names.to_string(), "-management", &control.to_string()]);
        let mut name_server = VigieProcess::spawn(&mut command).expect("pebble is installed");
        name_server.wait_ready(control).await.unwrap();
        let mut command = Command::new("pebble");
        command.arg("-config").arg(config);
        command.args(["-dnsserver", &asked.unwrap_or(names).to_string()]);
        // No sleeps, and every order is validated anew. Some nonces are refused, as is its habit.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        command.env("PEBBLE_ALTERNATE_ROOTS", "1");
        let mut pebble = VigieProcess::spawn(&mut command).expect("pebble is installed");
        pebble.wait_ready(address).await.unwrap();
        pebble.wait_ready(management).await.unwrap();
        Self { address, management, web, websecure, files, own, _names: name_server, pebble }
    }

    /// A static configuration with resolvers; `acme` are further keys of each, by its name.
    pub(super) fn vigie(&self, resolvers: &[(&str, &str)]) -> String {
        let mut text = format!(
            "core: {{workers: 2}}\nentryPoints:\n  web: {{address: '{}'}}\n  websecure: {{address: '{}'}}\n  \
             traefik: {{address: '127.0.0.1:0'}}\nproviders: {{file: {{filename: '{{dir}}/dynamic.yml'}}}}\n\
             api: {{insecure: true}}\nping: {{}}\nmetrics: {{prometheus: {{}}}}\nlog: {{level: INFO}}\ncertificatesResolvers:\n",
            self.web, self.websecure
        );
        for (name, more) in resolvers {
            let server = self.address;
            let ca = self.files.path().join("ca.pem");
            let _ = writeln!(
                text,
                "  {name}: {{acme: {{email: a@example.com, caServer: 'https://{server}/dir', keyType: EC256, \
                 caCertificates: ['{}'], storage: '{{dir}}/acme.json', {more}}}}}",
                ca.display()
            );
        }
        text
    }

    /// A client that trusts what this authority issues, and nothing else.
    pub(super) async fn client_config(&self) -> Arc<ClientConfig> {
        self.client_config_of(0).await
    }

    /// As [`client_config`](Self::client_config), by one of its roots.
    pub(super) async fn client_config_of(&self, root: usize) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root(root).await).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        // A resumed session shows no certificate, and looks at none.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    async fn root(&self, index: usize) -> CertificateDer<'static> {
        let config = self.own.client_config(&[]);
        let mut client = Client::connect_tls(self.management, config, "127.0.0.1").await.unwrap();
        let pem = client.get("127.0.0.1", &format!("/roots/{index}")).await.unwrap().body;
        CertificateDer::from_pem_slice(&pem).unwrap()
    }

    /// The common name of a root, which is its own issuer.
    pub(super) async fn root_name(&self, index: usize) -> String {
        let der = self.root(index).await;
        // Pebble's are `Pebble Root CA ` and six hexadecimal digits.
        let text = String::from_utf8_lossy(&der).into_owned();
        let at = text.find("Pebble Root CA ").expect("a name");
        text[at..].chars().take("Pebble Root CA 012345".len()).collect()
    }

    /// How many orders it has had.
    pub(super) fn orders(&self) -> usize {
        self.words().matches("Added order").count()
    }

    pub(super) fn words(&self) -> String {
        format!("{}{}", self.pebble.stdout(), self.pebble.stderr())
    }

    pub(super) async fn stop(&mut self) {
        self.pebble.stop(PATIENCE).await.unwrap();
        let address = self.address;
        let gone = eventually(PATIENCE, async || tokio::net::TcpStream::connect(address).await.is_err());
        assert!(gone.await);
    }
}
