//! Metrics as lines: datagrams to StatsD and Datadog, requests to InfluxDB. What is lost on the way is lost, as with
//! Traefik: each push says what happened since the one before.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use lb_config::telemetry::{DatagramAddress, MetricExports, Push, UnixKind};
use lb_observe::metrics::{Format, Lines, Metrics};
use rustix::io::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UdpSocket, UnixDatagram, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::receiver::Receiver;
use super::{Export, Exporter, TIMEOUT, Trouble, view};

/// Seconds: bounds of the durations from which lines are made, those of OTLP.
pub(crate) const BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Of one datagram: fits into an Ethernet frame.
const DATAGRAM: usize = 1432;

/// One exporter for each receiver in `exports`.
pub(crate) fn lines(
    exports: &MetricExports,
    metrics: &Metrics,
    runtime: &Handle,
) -> anyhow::Result<Vec<Exporter>> {
    let mut exporters = Vec::new();
    let mut start = |signal, push: &Push, format, way| {
        let lines = Lines::new(format, view(push, &BOUNDS, metrics));
        let pusher = Pusher { trouble: Trouble::new(signal), metrics: metrics.clone(), lines, way };
        exporters.push(Exporter::start(runtime, push.interval, Arc::default(), pusher));
    };
    if let Some(statsd) = &exports.statsd {
        let format = Format::StatsD { prefix: statsd.prefix.clone() };
        start("statsD", &statsd.push, format, Way::datagrams(&statsd.to));
    }
    if let Some(datadog) = &exports.datadog {
        let format = Format::Datadog { prefix: datadog.prefix.clone() };
        start("datadog", &datadog.push, format, Way::datagrams(&datadog.to));
    }
    if let Some(influx) = &exports.influxdb {
        let receiver = Receiver::new(&influx.receiver, "")
            .map_err(|reason| anyhow::anyhow!("metrics.influxDB2: {reason}"))?
            .taking("text/plain; charset=utf-8");
        let format = Format::Influx { labels: influx.labels.clone() };
        start("influxDB2", &influx.push, format, Way::Requests(Box::new(receiver)));
    }
    Ok(exporters)
}

struct Pusher {
    trouble: Trouble,
    metrics: Metrics,
    lines: Lines,
    way: Way,
}

enum Way {
    Datagrams {
        to: DatagramAddress,
        /// For messages.
        address: String,
    },
    Requests(Box<Receiver>),
}

impl Way {
    fn datagrams(to: &DatagramAddress) -> Self {
        let address = match to {
            DatagramAddress::Udp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            DatagramAddress::Udp { host, port } => format!("{host}:{port}"),
            DatagramAddress::Unix { path, .. } => path.display().to_string(),
        };
        Self::Datagrams { to: to.clone(), address }
    }

    fn endpoint(&self) -> &str {
        match self {
            Self::Datagrams { address, .. } => address,
            Self::Requests(receiver) => receiver.endpoint(),
        }
    }

    async fn send(&mut self, lines: &[String]) -> Result<(), String> {
        match self {
            Self::Datagrams { to, .. } => {
                let sent = tokio::time::timeout(TIMEOUT, send_datagrams(to, lines)).await;
                sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
                    .map_err(|error| error.to_string())
            }
            Self::Requests(receiver) => {
                let mut text = lines.join("\n");
                text.push('\n');
                receiver
                    .send_within(TIMEOUT, Bytes::from(text))
                    .await
                    .map(drop)
                    .map_err(|failed| failed.reason)
            }
        }
    }
}

enum Socket {
    Udp(UdpSocket),
    Datagram(UnixDatagram),
    Stream(UnixStream),
}

impl Socket {
    async fn connect(to: &DatagramAddress) -> io::Result<Self> {
        let (path, kind) = match to {
            DatagramAddress::Udp { host, port } => {
                let found = tokio::net::lookup_host((host.as_str(), *port)).await?.next();
                let to = found.ok_or(io::ErrorKind::NotFound)?;
                let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
                socket.connect(to).await?;
                return Ok(Self::Udp(socket));
            }
            DatagramAddress::Unix { path, kind } => (path, kind),
        };
        let datagram = || {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path).map(|()| socket)
        };
        match kind {
            Some(UnixKind::Datagram) => datagram().map(Self::Datagram),
            Some(UnixKind::Stream) => UnixStream::connect(path).await.map(Self::Stream),
            // Datadog's own clients find out in the same way.
            None => match datagram() {
                Err(error) if error.raw_os_error() == Some(Errno::PROTOTYPE.raw_os_error()) => {
                    UnixStream::connect(path).await.map(Self::Stream)
                }
                socket => socket.map(Self::Datagram),
            },
        }
    }

    async fn send(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(text.as_bytes()).await.map(drop),
            Self::Datagram(socket) => socket.send(text.as_bytes()).await.map(drop),
            Self::Stream(socket) => socket.write_all(text.as_bytes()).await,
        }
    }
}

async fn send_datagrams(to: &DatagramAddress, lines: &[String]) -> io::Result<()> {
    let mut socket = Socket::connect(to).await?;
    let mut datagram = String::new();
    for line in lines {
        if !datagram.is_empty() && datagram.len() + line.len() + 1 > DATAGRAM {
            socket.send(&datagram).await?;
            datagram.clear();
        }
        datagram.push_str(line);
        datagram.push('\n');
    }
    socket.send(&datagram).await
}

impl Export for Pusher {
    async fn send(&mut self, _: &mut watch::Receiver<bool>) {
        let lines = self.lines.take(&self.metrics, SystemTime::now());
        if !lines.is_empty() {
            let failed = self.way.send(&lines).await.err();
            self.trouble.note(self.way.endpoint(), failed.as_deref());
        }
    }
}
