//! OCSP stapling, with OpenSSL as the responder and as the client.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use lb_testkit::{Files, PATIENCE, eventually};

use crate::harness::{STATIC_TLS, Vigie};

/// An authority, a responder of its own, and certificates that name a responder which does not exist.
const ISSUE: &str = r#"
set -e
new="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $new -keyout ca.key -out ca.pem -subj "/CN=authority" -days 30 \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,digitalSignature
openssl req -x509 $new -keyout other.key -out other.pem -subj "/CN=other" -days 30
issue() {
  openssl req $new -keyout $1.key -out $1.csr -subj "/CN=$1"
  printf "subjectAltName=DNS:$1\n$3\n" > $1.ext
  openssl x509 -req -in $1.csr -CA ca.pem -CAkey ca.key -set_serial $2 -days 20 -extfile $1.ext -out $1.leaf
  cat $1.leaf ca.pem > $1.crt
}
url="authorityInfoAccess=OCSP;URI:http://ocsp.invalid/"
issue good.test 0x1001 $url
issue revoked.test 0x1002 $url
issue unknown.test 0x1003 $url
issue silent.test 0x1004
issue alone.test 0x1005 $url
cp alone.test.leaf alone.test.crt
issue responder 0x1006 extendedKeyUsage=OCSPSigning
issue impostor 0x1007 extendedKeyUsage=clientAuth
printf "V\t361231235959Z\t\t1001\tunknown\t/CN=good.test\n" > index.txt
printf "R\t361231235959Z\t260101000000Z\t1002\tunknown\t/CN=revoked.test\n" >> index.txt
printf "V\t361231235959Z\t\t1005\tunknown\t/CN=alone.test\n" >> index.txt
"#;

fn issue(files: &Files) {
    let output = Command::new("sh").args(["-c", ISSUE]).current_dir(files.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

struct Responder {
    child: Child,
    url: String,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `openssl ocsp` that signs with this certificate, at a port of the system's choice.
async fn responder(files: &Files, signer: &str, more: &[&str]) -> Responder {
    let said = std::fs::File::create(files.path().join("responder.log")).unwrap();
    let key = format!("{}.key", signer.trim_end_matches(".leaf").trim_end_matches(".pem"));
    let child = Command::new("openssl")
        .args([
            "ocsp",
            "-port",
            "0",
            "-index",
            "index.txt",
            "-CA",
            "ca.pem",
            "-rsigner",
            signer,
            "-rkey",
            &key,
        ])
        .args(more)
        .current_dir(files.path())
        .stdout(said.try_clone().unwrap())
        .stderr(said)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let log = files.path().join("responder.log");
    let port = || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let (_, rest) = said.split_once("ACCEPT ")?;
        rest.split_whitespace().next()?.rsplit_once(':')?.1.parse::<u16>().ok()
    };
    assert!(eventually(PATIENCE, async || port().is_some()).await);
    Responder { child, url: format!("http://127.0.0.1:{}/", port().unwrap()) }
}

fn dynamic(names: &[&str]) -> String {
    let pairs = names
        .iter()
        .map(|name| format!("    - {{certFile: '{{dir}}/{name}.crt', keyFile: '{{dir}}/{name}.key'}}\n"));
    format!(
        "http:\n  services: {{s: {{loadBalancer: {{servers: []}}}}}}\n  routers: {{r: {{rule: 'PathPrefix(`/`)', service: s}}}}\n\
         tls:\n  certificates:\n{}",
        pairs.collect::<String>()
    )
}

fn with_override(url: &str) -> String {
    format!(
        "{STATIC_TLS}log: {{level: WARN}}\nocsp: {{responderOverrides: {{'http://ocsp.invalid/': '{url}'}}}}\n"
    )
}

/// What OpenSSL says of the response that comes with the handshake.
async fn stapled(vigie: &Vigie, directory: &Path, name: &str, version: &str) -> String {
    let address = vigie.websecure().to_string();
    let mut command = Command::new("openssl");
    command
        .args([
            "s_client",
            "-connect",
            &address,
            "-servername",
            name,
            "-status",
            version,
            "-CAfile",
            "ca.pem",
        ])
        .current_dir(directory)
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    let found = said.lines().find_map(|line| line.trim().strip_prefix("Cert Status: "));
    found.map_or_else(
        || if said.contains("no response sent") { "none".into() } else { said.clone() },
        str::to_owned,
    )
}

async fn until_stapled(vigie: &Vigie, directory: &Path, name: &str) {
    let is_good = async || stapled(vigie, directory, name, "-tls1_3").await == "good";
    assert!(eventually(PATIENCE, is_good).await, "{}", vigie.words());
}

#[tokio::test]
async fn good_answers_are_stapled_and_others_are_not() {
    let files = Files::new();
    issue(&files);
    let directory = files.path().to_owned();
    let names = ["good.test", "revoked.test", "unknown.test", "silent.test", "alone.test"];
    let responder = responder(&files, "ca.pem", &["-ndays", "1"]).await;
    let vigie = Vigie::over(files, &with_override(&responder.url), &dynamic(&names)).await;
    until_stapled(&vigie, &directory, "good.test").await;
    assert_eq!(stapled(&vigie, &directory, "good.test", "-tls1_2").await, "good");
    vigie.until_metric("lb_ocsp_responses_total", &[("outcome", "revoked")], 1.0).await;
    vigie.until_metric("lb_ocsp_responses_total", &[("outcome", "failed")], 1.0).await;
    for name in &names[1..4] {
        assert_eq!(stapled(&vigie, &directory, name, "-tls1_3").await, "none", "{name}");
    }
    vigie.until_said("the chain lacks the certificate of the issuer").await;
    vigie.until_said("the certificate is revoked").await;
    vigie.until_said("the responder does not know the certificate").await;
    // A reload keeps what is there, even while nobody answers.
    drop(responder);
    vigie.write(&dynamic(&["good.test", "silent.test"]));
    let metric = async || vigie.metrics().await.labels("traefik_tls_certs_not_after", "cn").len() == 3;
    assert!(eventually(PATIENCE, metric).await);
    assert_eq!(stapled(&vigie, &directory, "good.test", "-tls1_3").await, "good");
}

#[tokio::test]
async fn a_responder_may_sign_if_the_issuer_has_asked_it_to() {
    for (signer, stapled_then) in [("responder.leaf", true), ("impostor.leaf", false), ("other.pem", false)] {
        let files = Files::new();
        issue(&files);
        let directory = files.path().to_owned();
        let responder = responder(&files, signer, &["-ndays", "1"]).await;
        let vigie = Vigie::over(files, &with_override(&responder.url), &dynamic(&["good.test"])).await;
        if stapled_then {
            until_stapled(&vigie, &directory, "good.test").await;
        } else {
            vigie.until_said("the answer is not signed by the certificate's issuer").await;
            assert_eq!(stapled(&vigie, &directory, "good.test", "-tls1_3").await, "none", "{signer}");
        }
    }
}

#[tokio::test]
async fn no_handshake_waits_for_a_responder() {
    let files = Files::new();
    issue(&files);
    let directory = files.path().to_owned();
    // Accepts, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let vigie = Vigie::over(files, &with_override(&url), &dynamic(&["good.test"])).await;
    let asked = tokio::task::spawn_blocking(move || silent.accept().unwrap());
    let _held = asked.await.unwrap();
    assert_eq!(stapled(&vigie, &directory, "good.test", "-tls1_3").await, "none");
}
