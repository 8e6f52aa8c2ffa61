"""nginx: one worker; many hosts through `map`, as its users write them."""

import re
import signal

from .. import machine
from .peer import KEEP_ALIVE, Peer

JSON_LOG = """
  log_format json escape=json '{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
    '"path":"$request_uri","protocol":"$server_protocol","host":"$http_host","status":$status,"bytes":$body_bytes_sent,'
    '"duration":$request_time,"upstream":"$upstream_addr","upstream_duration":"$upstream_response_time"}';
  access_log logs/access.log json buffer=64k flush=1s;
"""

MIDDLEWARES = """
      allow 127.0.0.0/8; deny all;
      limit_req zone=clients burst=100000 nodelay;
      rewrite ^/api(/.*)?$ /v1$1 break;
      proxy_set_header X-Bench-Request "one";
      add_header X-Bench-Response "two";
"""


class Nginx(Peer):
    name = "nginx"
    # Debian's has no HTTP/3.
    lacks = frozenset({"http3"})
    # The open-source build has no Prometheus exporter; the log is compared without.

    def binary(self):
        return machine.debian("nginx")

    def version(self):
        return re.sub(r"^nginx version: ", "", self.first_line("-v"))

    def command(self):
        return [self.binary(), "-p", str(self.directory), "-e", "stderr", "-c", str(self.directory / "nginx.conf")]

    def reload(self, setup):
        self.configure(setup)
        self.process.signal(signal.SIGHUP)

    def configure(self, setup):
        hosts = "".join(f"    {host} origin;\n" for host in setup.hosts())
        routes = f"""
  map_hash_max_size 524288;
  map_hash_bucket_size 128;
  map $host $pool {{
    default "";
{hosts}  }}"""
        # proxy_set_header is inherited only where a location sets none itself, hence `forwarded` in each.
        forwarded = """
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Server proxy;
      proxy_set_header X-Real-Ip $remote_addr;"""
        # The authority of an HTTP/2 request is in $host, not in $http_host; `Host` must reach the origin.
        forwarded = forwarded.replace("$http_host", "$host")
        if setup.upgrades:
            kept_alive = 'proxy_set_header Connection "";'
            passed_on = "proxy_set_header Upgrade $http_upgrade;\n      proxy_set_header Connection $connection_upgrade;"
            forwarded = forwarded.replace(kept_alive, passed_on)
        if setup.routers:
            locations = f"""
    location /api {{ if ($pool = "") {{ return 404; }}{forwarded}
      proxy_pass http://$pool;
    }}
    location / {{ return 404; }}"""
        else:
            more = MIDDLEWARES if setup.middlewares else ""
            locations = f"""
    location / {{{forwarded}{more}
      proxy_pass http://origin;
    }}"""
        log = JSON_LOG if setup.access_log else "  access_log off;"
        self.write("nginx.conf", f"""
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections {machine.open_files() - 100}; }}
http {{
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
{log}
  tcp_nodelay on;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_max_body_size 0;
  # Bodies stream through memory, as they do in every other peer.
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  limit_req_zone $binary_remote_addr zone=clients:10m rate=1000000r/s;
  upstream origin {{
    server 127.0.0.1:{setup.origin};
    keepalive {KEEP_ALIVE};
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
  }}
{routes if setup.routers else ""}
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  ssl_certificate {setup.certificate};
  ssl_certificate_key {setup.key};
  ssl_protocols TLSv1.3;
  ssl_session_cache shared:tls:10m;
  server {{
    listen 127.0.0.1:{self.http} backlog=16384;
    listen 127.0.0.1:{self.https} ssl http2 backlog=16384;
    http2_max_concurrent_streams 250;
{locations}
  }}
}}
""")
