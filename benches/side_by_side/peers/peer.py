"""What every proxy is asked to be, and what it must be able to do for the harness."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from .. import machine
from ..process import Process, wait_until

# Fields every proxy adds to a request: those Traefik adds, so that all write the same bytes.
FORWARDED = (
    "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-server", "x-real-ip",
)
# As many idle upstream connections as the largest scenario wants, in every proxy.
KEEP_ALIVE = 6000


@dataclass
class Setup:
    """One configuration, whatever the product that reads it."""

    origin: int
    certificate: Path
    key: Path
    # Certificate and key in one file, as HAProxy wants them.
    both: Path
    # 0: one catch-all route; else that many hosts, each with one path.
    routers: int = 0
    # Hosts added to the routes by a reload.
    extra_hosts: list = field(default_factory=list)
    middlewares: bool = False
    access_log: bool = False
    metrics: bool = False
    health_check: bool = False
    # HTTP/3 on the port of TLS.
    http3: bool = False
    # WebSockets reach the origin.
    upgrades: bool = False
    # Wish for reloads to be applied at once where the product would wait.
    reloads: bool = False

    def hosts(self):
        return [f"host-{i}.example.com" for i in range(self.routers)] + self.extra_hosts


class Peer:
    name = ""
    tls = True
    # Scenario features that the product does not have.
    lacks = frozenset()
    # Seconds it may take to start; the largest route tables need it.
    patience = 180

    def __init__(self, directory):
        self.directory = directory
        # Apart, since some watch the directory of their configuration: a line in a log must not wake them.
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.process = None
        self.http, self.https, self.admin = (machine.free_port() for _ in range(3))
        self.server_name = "proxy"

    def binary(self):
        raise NotImplementedError

    def version(self):
        raise NotImplementedError

    def configure(self, setup):
        """Writes the configuration files."""
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def environment(self):
        return {}

    def reload(self, setup):
        """Has the running proxy take a changed setup; it may still be at it on return."""
        raise NotImplementedError

    def start(self, setup):
        self.setup = setup
        self.configure(setup)
        self.launch()

    def launch(self):
        self.process = Process(self.command(), machine.CORE_PROXY, self.logs / "output", self.environment())

    def wait_ready(self, answers):
        wait_until(answers, self.patience, f"{self.name} does not answer as it should", self.process)

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None

    def url(self, path="/", tls=False):
        return f"https://127.0.0.1:{self.https}{path}" if tls else f"http://127.0.0.1:{self.http}{path}"

    def write(self, name, text):
        """Replaces a file in one step: a watcher never reads half of it."""
        path = self.directory / name
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text)
        partial.rename(path)
        return path

    def first_line(self, *arguments):
        done = subprocess.run([self.binary(), *arguments], capture_output=True, text=True)
        return (done.stdout + done.stderr).strip().splitlines()[0]
