//! What to do about an address that cannot be had.

use std::error::Error as _;
use std::io::{self, ErrorKind};

use lb_proxy::BindError;

/// Ports below it are for those with the capability (`net.ipv4.ip_unprivileged_port_start`, as Linux has it).
const UNPRIVILEGED: u16 = 1024;

/// A hint, where `error` is about a port.
pub(crate) fn hint(error: &anyhow::Error, is_demo: bool) -> Option<String> {
    let bind = error.downcast_ref::<BindError>()?;
    let kind = bind.source()?.downcast_ref::<io::Error>()?.kind();
    of_port(kind, bind.address.port(), is_demo)
}

fn of_port(kind: ErrorKind, port: u16, is_demo: bool) -> Option<String> {
    match kind {
        ErrorKind::AddrInUse if is_demo => {
            Some("name another port with --port=PORT, or let --port=0 take any free one".to_owned())
        }
        ErrorKind::AddrInUse => Some(format!(
            "`ss -ltnp 'sport = :{port}'` shows who has it; a running Vigie is replaced with `vigie upgrade`"
        )),
        ErrorKind::PermissionDenied if port < UNPRIVILEGED => Some(format!(
            "ports below {UNPRIVILEGED} take the capability CAP_NET_BIND_SERVICE: start Vigie from its systemd unit, \
             or run `setcap cap_net_bind_service=+ep` on the program, or choose a higher port"
        )),
        ErrorKind::AddrNotAvailable => {
            Some("this machine has no such address: `ip -brief address` shows those it has".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_cannot_have_a_port_is_told_what_to_do() {
        for (kind, port, is_demo, words) in [
            (ErrorKind::AddrInUse, 8000, true, Some("--port=")),
            (ErrorKind::AddrInUse, 80, false, Some("'sport = :80'")),
            (ErrorKind::PermissionDenied, 80, false, Some("CAP_NET_BIND_SERVICE")),
            (ErrorKind::PermissionDenied, 80, true, Some("CAP_NET_BIND_SERVICE")),
            (ErrorKind::PermissionDenied, 8000, false, None),
            (ErrorKind::AddrNotAvailable, 80, false, Some("`ip -brief address`")),
        ] {
            let hint = of_port(kind, port, is_demo);
            let fits = hint.as_ref().zip(words).is_some_and(|(hint, words)| hint.contains(words));
            assert!(fits || (hint.is_none() && words.is_none()), "{kind} {port}: {hint:?}");
        }
    }
}
