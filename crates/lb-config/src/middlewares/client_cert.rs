//! The `passTLSClientCert` middleware.

use crate::decode::{Block, Field};
use crate::dynamic::{ClientCertInfo, DistinguishedName, Middleware, PassTlsClientCert};

pub(super) fn pass_tls_client_cert(block: &Block<'_>) -> Option<Middleware> {
    let pem = flag(block, "pem");
    let info = block.take("info").and_then(|field| info(&field));
    Some(Middleware::PassTlsClientCert(PassTlsClientCert { pem, info }))
}

fn flag(block: &Block<'_>, key: &'static str) -> bool {
    block.take(key).and_then(|field| field.boolean()).unwrap_or(false)
}

fn info(field: &Field<'_>) -> Option<ClientCertInfo> {
    let block = field.block()?;
    let info = ClientCertInfo {
        not_after: flag(&block, "notAfter"),
        not_before: flag(&block, "notBefore"),
        sans: flag(&block, "sans"),
        serial_number: flag(&block, "serialNumber"),
        subject: block.take("subject").and_then(|field| name(&field, true)),
        issuer: block.take("issuer").and_then(|field| name(&field, false)),
    };
    block.finish();
    Some(info)
}

fn name(field: &Field<'_>, of_subject: bool) -> Option<DistinguishedName> {
    let block = field.block()?;
    let name = DistinguishedName {
        country: flag(&block, "country"),
        province: flag(&block, "province"),
        locality: flag(&block, "locality"),
        organization: flag(&block, "organization"),
        // An issuer has none, as in Traefik.
        organizational_unit: of_subject && flag(&block, "organizationalUnit"),
        common_name: flag(&block, "commonName"),
        serial_number: flag(&block, "serialNumber"),
        domain_component: flag(&block, "domainComponent"),
    };
    block.finish();
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{middleware, middleware_problems};

    #[test]
    fn options_are_read() {
        let text = "{passTLSClientCert: {pem: true, info: {notAfter: true, sans: true, \
                    subject: {organizationalUnit: true, commonName: true}, issuer: {domainComponent: true}}}}";
        let info = ClientCertInfo {
            not_after: true,
            sans: true,
            subject: Some(DistinguishedName {
                organizational_unit: true,
                common_name: true,
                ..DistinguishedName::default()
            }),
            issuer: Some(DistinguishedName { domain_component: true, ..DistinguishedName::default() }),
            ..ClientCertInfo::default()
        };
        let expected = PassTlsClientCert { pem: true, info: Some(info) };
        assert_eq!(middleware(text), Ok(Middleware::PassTlsClientCert(expected)));
    }

    #[test]
    fn what_does_not_exist_is_told() {
        for (text, expected) in [
            ("{pem: often}", "pem: expected `true` or `false`, found `often`"),
            ("{info: {subject: {}}}", "info.subject: cannot be a standalone element: `{}` is empty"),
            (
                "{info: {issuer: {organizationalUnit: true}}}",
                "info.issuer.organizationalUnit: there is no key `organizationalUnit` here",
            ),
        ] {
            let told = middleware_problems(&format!("{{passTLSClientCert: {text}}}"));
            assert_eq!(told, [format!("passTLSClientCert.{expected}")], "{text}");
        }
    }
}
