//! Listening sockets that somebody else has bound: which entry point each is for.

use std::net::{SocketAddr, TcpListener};

use lb_config::static_config::EntryPoint;

/// A bound socket from systemd, or from the process that this one follows.
#[derive(Debug)]
pub struct Inherited {
    /// The entry point that it is for.
    pub entry_point: String,
    /// The address that was configured there, port 0 included: another one is not taken for it. `None`: the
    /// socket is right for its entry point whatever address is configured (socket activation).
    pub configured: Option<SocketAddr>,
    pub socket: TcpListener,
}

impl Inherited {
    fn is_for(&self, entry: &EntryPoint, all: &[EntryPoint]) -> bool {
        match self.configured {
            // Port 0 is any port: only the name tells.
            Some(address) => {
                address == entry.address && (address.port() != 0 || self.entry_point == entry.name)
            }
            None if all.iter().any(|entry| entry.name == self.entry_point) => self.entry_point == entry.name,
            None => self.socket.local_addr().is_ok_and(|bound| {
                let everywhere = bound.ip().is_unspecified() && entry.address.ip().is_unspecified();
                bound == entry.address || (everywhere && bound.port() == entry.address.port())
            }),
        }
    }
}

/// What one entry point goes on with.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) sockets: Vec<TcpListener>,
    /// One of them came without an address.
    pub(crate) activated: bool,
}

/// Takes out of `inherited` what is for `entry`.
pub(crate) fn take(inherited: &mut Vec<Inherited>, entry: &EntryPoint, all: &[EntryPoint]) -> Share {
    let mut share = Share::default();
    for one in inherited.extract_if(.., |one| one.is_for(entry, all)) {
        share.activated |= one.configured.is_none();
        share.sockets.push(one.socket);
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_points(text: &str) -> Vec<EntryPoint> {
        let (config, _) = lb_config::parse_static("vigie.yml", &format!("entryPoints: {text}")).unwrap();
        config.entry_points
    }

    /// Names of the entry points that take a socket bound to a port of its own.
    fn takers(entry_points: &[EntryPoint], name: &str, configured: Option<&str>) -> Vec<String> {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let configured = configured.map(|address| address.parse().unwrap());
        let one = Inherited { entry_point: name.to_owned(), configured, socket };
        let takers = entry_points.iter().filter(|entry| one.is_for(entry, entry_points));
        takers.map(|entry| entry.name.clone()).collect()
    }

    #[test]
    fn a_handed_over_socket_goes_where_its_address_is_configured() {
        let all = entry_points(
            "{a: {address: '127.0.0.1:80'}, b: {address: '127.0.0.1:0'}, c: {address: '127.0.0.1:0'}}",
        );
        assert_eq!(takers(&all, "a", Some("127.0.0.1:80")), ["a"]);
        assert_eq!(takers(&all, "renamed", Some("127.0.0.1:80")), ["a"]);
        assert_eq!(takers(&all, "a", Some("127.0.0.1:81")), [""; 0], "it has moved: the old one is closed");
        assert_eq!(takers(&all, "c", Some("127.0.0.1:0")), ["c"]);
    }

    #[test]
    fn an_activated_socket_goes_by_its_name_else_by_where_it_is_bound() {
        let all = entry_points("{a: {address: ':80'}, b: {address: '127.0.0.1:81'}}");
        assert_eq!(takers(&all, "b", None), ["b"]);
        assert_eq!(takers(&all, "vigie.socket", None), [""; 0]);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = entry_points(&format!(
            "{{a: {{address: ':80'}}, b: {{address: '{}'}}}}",
            socket.local_addr().unwrap()
        ));
        let mut inherited = vec![Inherited { entry_point: "unknown".to_owned(), configured: None, socket }];
        assert!(take(&mut inherited, &all[0], &all).sockets.is_empty());
        let share = take(&mut inherited, &all[1], &all);
        assert!(share.activated && share.sockets.len() == 1 && inherited.is_empty());
    }
}
