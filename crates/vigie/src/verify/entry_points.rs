//! Whether entry points are bound where the configuration says, and take connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Instance, PATIENCE, Report, text};
use crate::listening;

pub(super) async fn verify(instance: &Instance, report: &mut Report) {
    report.entry_points = instance.entry_points.len();
    for entry_point in &instance.entry_points {
        let (name, written) = (text(entry_point, "name"), text(entry_point, "address"));
        if let Some(address) = reached(instance, written) {
            let what = format!("entry point {name} {written}");
            let problem = match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(error)) => format!("{address} takes no connection from here: {error}"),
                Err(_) => format!("{address} takes no connection from here within {PATIENCE:?}"),
            };
            if instance.is_here {
                let (reason, _) = listening::explain(&instance.sockets, address);
                let hint = "look at the report that Vigie writes when it starts, and restart it";
                report.error(what, format!("{problem}: {reason}"), hint);
            } else {
                report.error(what, problem, "look for a firewall in between, or run this on its machine");
            }
        }
    }
    if instance.is_here {
        compare(instance, report);
    }
}

/// Where an entry point is tried from here; `None` for one that is not TCP or takes any free port.
pub(super) fn reached(instance: &Instance, written: &str) -> Option<SocketAddr> {
    let mut address = parse(written)?;
    if address.ip().is_unspecified() {
        address.set_ip(if instance.is_here { Ipv4Addr::LOCALHOST.into() } else { instance.address.ip() });
    }
    (address.port() != 0).then_some(address)
}

/// `:80`, `127.0.0.1:8080/tcp`
fn parse(written: &str) -> Option<SocketAddr> {
    let address = match written.split_once('/') {
        Some((address, "tcp")) => address,
        Some(_) => return None,
        None => written,
    };
    match address.strip_prefix(':') {
        Some(port) => Some((IpAddr::from(Ipv4Addr::UNSPECIFIED), port.parse().ok()?).into()),
        None => address.parse().ok(),
    }
}

/// The file may say something else by now: entry points take effect at the start only.
fn compare(instance: &Instance, report: &mut Report) {
    let Some(file) = &instance.on_disk.static_config else { return };
    let hint = "`vigie upgrade` or a restart puts the file in force";
    for entry_point in &file.entry_points {
        let (name, written) = (&entry_point.name, &entry_point.address_text);
        let what = format!("entry point {name} {written}");
        match instance.entry_points.iter().find(|running| text(running, "name") == name) {
            None => {
                report.error(what, format!("is in {}, but the running instance has none", file.file), hint);
            }
            Some(running) if text(running, "address") != written => {
                let elsewhere = text(running, "address");
                report.error(what, format!("the running instance has it at {elsewhere}"), hint);
            }
            Some(_) => {}
        }
    }
    for running in &instance.entry_points {
        let name = text(running, "name");
        if !file.entry_points.iter().any(|entry_point| entry_point.name == name) {
            report.error(format!("entry point {name}"), format!("is no longer in {}", file.file), hint);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_entry_points_write_them() {
        for (written, expected) in [
            (":80", Some("0.0.0.0:80")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:443/tcp", Some("[::1]:443")),
            (":8443/udp", None),
            ("nonsense", None),
        ] {
            assert_eq!(parse(written).map(|address| address.to_string()).as_deref(), expected, "{written}");
        }
    }
}
