"""HAProxy: one thread, master and worker; many hosts through a map file, as its users write them."""

import re
import signal

from .. import machine
from .peer import Peer

JSON_LOG = (
    '\'{"time":"%[date,ltime(%FT%T%z)]","client":"%ci","method":"%HM","path":"%HU","protocol":"%HV",'
    '"host":"%[capture.req.hdr(0)]","status":%ST,"bytes":%B,"duration":%Ta,"upstream":"%si:%sp",'
    '"upstream_duration":%Tr}\''
)

MIDDLEWARES = """
  http-request deny unless { src 127.0.0.0/8 }
  http-request track-sc0 src
  http-request deny deny_status 429 if { sc_http_req_rate(0) gt 1000000 }
  http-request replace-path ^/api(/.*)?$ /v1\\1
  http-request set-header X-Bench-Request one
  http-response set-header X-Bench-Response two
"""


class Haproxy(Peer):
    name = "haproxy"
    # Debian's has no QUIC.
    lacks = frozenset({"http3"})

    def binary(self):
        return machine.debian("haproxy")

    def version(self):
        return re.search(r"version (\S+)", self.first_line("-v")).group(1)

    def command(self):
        return [self.binary(), "-W", "-db", "-f", str(self.directory / "haproxy.cfg")]

    def reload(self, setup):
        self.configure(setup)
        self.process.signal(signal.SIGUSR2)

    def configure(self, setup):
        if setup.routers:
            self.write("hosts.map", "".join(f"{host} origin\n" for host in setup.hosts()))
            map_file = self.directory / "hosts.map"
            routes = f"  use_backend %[req.hdr(host),lower,map_str({map_file},none)] if {{ path_beg /api }}"
            fallback = "none"
        else:
            routes, fallback = "", "origin"
        log = ""
        if setup.access_log:
            log = f"  log global\n  capture request header Host len 64\n  log-format {JSON_LOG}"
        metrics = ""
        if setup.metrics:
            metrics = f"""
frontend metrics
  bind 127.0.0.1:{self.admin}
  http-request use-service prometheus-exporter if {{ path /metrics }}
"""
        connections = (machine.open_files() - 200) // 2
        table = "  stick-table type ip size 100k expire 60s store http_req_rate(10s)" if setup.middlewares else ""
        self.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn {connections}
  {"log stdout len 4096 format raw daemon info" if setup.access_log else ""}
  ssl-default-bind-options ssl-min-ver TLSv1.3
  tune.h2.max-concurrent-streams 250
  tune.ssl.cachesize 20000
  # Half of the files are client connections in the largest scenario; keep pooling all the same.
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
defaults
  mode http
  timeout connect 5s
  timeout client 3600s
  timeout server 60s
  timeout http-keep-alive 3600s
  http-reuse always
  maxconn {connections}
frontend web
  bind 127.0.0.1:{self.http} backlog 16384
  bind 127.0.0.1:{self.https} ssl crt {setup.both} alpn h2,http/1.1 backlog 16384
{log}
{table}
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Forwarded-Port %[dst_port]
  http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}
  http-request set-header X-Forwarded-Proto http unless {{ ssl_fc }}
  http-request set-header X-Forwarded-Server proxy
  http-request set-header X-Real-Ip %[src]
  option forwardfor
{MIDDLEWARES if setup.middlewares else ""}
{routes}
  default_backend {fallback}
backend origin
  server one 127.0.0.1:{setup.origin} pool-purge-delay 60s
backend none
  http-request return status 404
{metrics}
""")
