//! Several providers' configurations as one.

use crate::dynamic::Config;

/// Everything that any provider defined. Names carry their provider, so nothing clashes but what is
/// global: of `default` TLS options and of the default certificate the first one given wins.
pub(crate) fn merge<'a>(configs: impl IntoIterator<Item = (&'a str, &'a Config)>) -> Config {
    let mut merged = Config::default();
    for (_, config) in configs {
        fn add<T: Clone>(
            into: &mut std::collections::BTreeMap<String, T>,
            from: &std::collections::BTreeMap<String, T>,
        ) {
            for (name, object) in from {
                into.entry(name.clone()).or_insert_with(|| object.clone());
            }
        }
        add(&mut merged.routers, &config.routers);
        add(&mut merged.services, &config.services);
        add(&mut merged.composites, &config.composites);
        add(&mut merged.middlewares, &config.middlewares);
        add(&mut merged.servers_transports, &config.servers_transports);
        add(&mut merged.tcp.routers, &config.tcp.routers);
        add(&mut merged.tcp.services, &config.tcp.services);
        add(&mut merged.tcp.middlewares, &config.tcp.middlewares);
        add(&mut merged.tcp.servers_transports, &config.tcp.servers_transports);
        add(&mut merged.tls.options, &config.tls.options);
        add(&mut merged.udp.routers, &config.udp.routers);
        add(&mut merged.udp.services, &config.udp.services);
        for certificate in &config.tls.certificates {
            if !merged.tls.certificates.contains(certificate) {
                merged.tls.certificates.push(certificate.clone());
            }
        }
        if merged.tls.default_certificate.is_none() {
            merged.tls.default_certificate.clone_from(&config.tls.default_certificate);
        }
        if merged.tls.default_generated.is_none() {
            merged.tls.default_generated.clone_from(&config.tls.default_generated);
        }
    }
    merged
}
