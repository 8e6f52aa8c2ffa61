//! Certificate resolvers: authorities that certificates are ordered from (`certificatesResolvers`).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::dynamic::Pem;

/// One resolver that speaks ACME (RFC 8555).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// Contact of the account; may be empty.
    pub email: String,
    /// URL of the authority's directory, always `https`.
    pub ca_server: String,
    /// Trusted besides, or instead of, the system's authorities when talking to the server.
    pub ca_certificates: Vec<Pem>,
    pub ca_system_cert_pool: bool,
    /// The name that the server's certificate must have; `None`: the host of `ca_server`.
    pub ca_server_name: Option<String>,
    /// Common name of the issuer that ends the wanted chain.
    pub preferred_chain: Option<String>,
    pub profile: Option<String>,
    /// Mail addresses that go into the request for a certificate.
    pub email_addresses: Vec<String>,
    pub disable_common_name: bool,
    /// Account, certificates and keys: Traefik's `acme.json`.
    pub storage: PathBuf,
    pub key_type: KeyType,
    pub eab: Option<Eab>,
    /// How long the authority's certificates are valid: when to renew follows from it.
    pub certificates_duration: Duration,
    /// For one request to the authority, and for the head of its answer.
    pub client_timeout: Duration,
    pub client_response_header_timeout: Duration,
    /// For the authority to issue what was validated.
    pub certificate_timeout: Duration,
    pub challenge: Challenge,
}

/// How the authority is shown that a name is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// HTTP-01 (RFC 8555 section 8.3).
    Http {
        entry_point: String,
        /// Between the answer being in place and the authority being told.
        delay: Duration,
    },
    /// TLS-ALPN-01 (RFC 8737).
    Tls { delay: Duration },
    /// DNS-01 (RFC 8555 section 8.4).
    Dns(DnsChallenge),
}

impl Challenge {
    /// Whether it can show that all names below one are ours (RFC 8555 section 7.1.3).
    pub fn proves_wildcards(&self) -> bool {
        matches!(self, Self::Dns(_))
    }
}

/// Names are validated by a record in the DNS, which one of several programs or services is asked to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsChallenge {
    pub provider: DnsProvider,
    /// The recursive name servers that are asked, host and port; empty: the system's.
    pub resolvers: Vec<(String, u16)>,
    /// Between the record being set and being looked for.
    pub delay: Duration,
    /// Whether all authoritative name servers must have the record before the authority is told.
    pub check_authoritative: bool,
    /// The same of `resolvers`.
    pub check_recursive: bool,
}

macro_rules! dns_providers {
    ($($variant:ident: $name:literal,)*) => {
        /// Who sets the record, by lego's names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DnsProvider {
            $($variant,)*
        }

        impl DnsProvider {
            pub const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant),)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

dns_providers! {
    AcmeDns: "acme-dns",
    AzureDns: "azuredns",
    Cloudflare: "cloudflare",
    DeSec: "desec",
    DigitalOcean: "digitalocean",
    DuckDns: "duckdns",
    Exec: "exec",
    GandiV5: "gandiv5",
    GCloud: "gcloud",
    GoDaddy: "godaddy",
    Hetzner: "hetzner",
    HttpReq: "httpreq",
    Ionos: "ionos",
    Linode: "linode",
    Ovh: "ovh",
    Porkbun: "porkbun",
    Rfc2136: "rfc2136",
    Route53: "route53",
    Scaleway: "scaleway",
    Vultr: "vultr",
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    Ec256,
    Ec384,
    Rsa2048,
    Rsa3072,
    Rsa4096,
    Rsa8192,
}

/// External account binding (RFC 8555 section 7.3.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Eab {
    pub kid: String,
    /// The key itself, decoded.
    pub hmac: Vec<u8>,
}

impl fmt::Debug for Eab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eab").field("kid", &self.kid).finish_non_exhaustive()
    }
}
