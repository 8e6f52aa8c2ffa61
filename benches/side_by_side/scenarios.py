"""What is compared. Each scenario says how the peers are set up and what one round measures."""

import http.client
import random
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field, replace

from . import load
from .peers.peer import FORWARDED
from .process import wait_until

CPU = "CPU µs/request"


@dataclass
class Sample:
    """One round of one peer. `value` is what the scenario compares; smaller is better."""

    value: float
    # What of it the kernel did for the proxy.
    system_us: float | None = None
    requests_per_second: float | None = None
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    memory_mib: float | None = None
    errors: int = 0
    note: str = ""
    # Further numbers that the scenario explains in its `about`.
    more: dict = field(default_factory=dict)


@dataclass
class Scenario:
    name: str
    about: str
    # Fields of `Setup` that differ from the plain one.
    setup: dict = field(default_factory=dict)
    # Those that differ for Vigie alone.
    vigie: dict = field(default_factory=dict)
    unit: str = CPU
    needs: frozenset = frozenset()
    tls: bool = False
    path: str = "/"
    # Processor seconds per request come with every timed load.
    load: object = None
    # Opening thousands of connections takes its time, which must not be most of the run.
    least_seconds: int = 1
    # Whether the peers are started afresh in each round.
    restarts: bool = False
    # A peer may break this promise and only be shown for it; Vigie may not.
    peers_may_fail: bool = False

    def fits(self, peer):
        return not (self.needs & peer.lacks) and (peer.tls or not self.tls)

    def setup_for(self, peer, setup):
        changes = {**self.setup, **(self.vigie if peer.name == "vigie" else {})}
        return replace(setup, **changes, extra_hosts=[])

    def host(self, setup):
        """The host that is asked for to see whether the proxy is ready: the last one."""
        hosts = setup.hosts()
        return hosts[-1] if hosts else "bench.example.com"

    def ready(self, peer, setup):
        return answers(peer, self.path, self.host(setup), self.tls)

    def warm_up(self, peer):
        if self.load:
            self.load(peer, 1)

    def measure(self, peer, seconds):
        before = peer.process.cpu_seconds()
        result = self.load(peer, max(seconds, self.least_seconds))
        user, system = (after - before for after, before in zip(peer.process.cpu_seconds(), before))
        if not result.requests:
            raise RuntimeError(f"{peer.name}: not one request succeeded ({result.note})")
        return Sample(
            value=(user + system) / result.requests * 1e6,
            system_us=system / result.requests * 1e6,
            requests_per_second=result.requests / result.seconds,
            p50_us=result.p50_us, p99_us=result.p99_us, p999_us=result.p999_us,
            memory_mib=peer.process.memory().proportional / 2**20,
            errors=result.errors, note=result.note,
        )


def ask(peer, path, host, tls, timeout=10):
    """(status, body) of one request on a connection of its own."""
    if tls:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", peer.https, context=context, timeout=timeout)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", peer.http, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": host})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def answers(peer, path, host, tls):
    try:
        return ask(peer, path, host, tls)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def check_fairness(scenario, peer, setup):
    """Every peer must do the same work: the origin shows the head that reached it."""
    if "forwarded" in peer.lacks:
        return
    # The rate limit of the middlewares and the prefix of the routes leave the echo reachable.
    path = "/api/echo" if setup.routers else "/echo"
    status, body = ask(peer, path, scenario.host(setup), scenario.tls)
    if setup.routers or setup.middlewares:
        # `/api` hides the echo; the plain scenarios have shown the fields already.
        if status != 200:
            raise RuntimeError(f"{peer.name}: {path} is answered {status}")
        return
    names = {line.split(b":", 1)[0].strip().lower().decode() for line in body.splitlines()[1:] if b":" in line}
    missing = [name for name in FORWARDED if name not in names]
    if status != 200 or missing:
        raise RuntimeError(f"{peer.name}: the origin misses {', '.join(missing) or 'everything'} ({status})")


def wrk(path="/", tls=False, **options):
    return lambda peer, seconds: load.wrk(peer.url(path, tls), seconds, peer.logs, **options)


def routers_load(count):
    # At most 512 of them, drawn alike for every peer: enough to defeat caches, few enough for wrk's script.
    chosen = random.Random(count).sample(range(count), min(count, 512))
    return wrk("/api/items", hosts=[f"host-{i}.example.com" for i in chosen])


def handshakes(resumed):
    return lambda peer, seconds: load.handshakes(peer.https, seconds, peer.setup.certificate, resumed)


class Paced:
    """A fixed rate for all: a share of what the first peer that is asked serves at most."""

    def __init__(self, share):
        self.share, self.rate = share, None

    def __call__(self, peer, seconds):
        if self.rate is None:
            most = load.wrk(peer.url("/"), 2, peer.logs)
            self.rate = self.share * most.requests / most.seconds
        return load.h2load(peer.url("/"), seconds, peer.logs, clients=64, streams=1, rate=self.rate)


class Idle(Scenario):
    """Memory that an idle connection holds on to."""

    # Memory comes in huge pages of 2 MiB where the system has them on: enough connections to fill several.
    connections = 8000

    def warm_up(self, peer):
        pass

    def measure(self, peer, _seconds):
        opened = []
        port = peer.https if self.tls else peer.http
        context = client_context(peer.setup.certificate) if self.tls else None
        request = b"GET / HTTP/1.1\r\nHost: bench.example.com\r\n\r\n"
        try:
            # Buffers and pools that the first connections fill once and for all are not the question.
            for _ in range(50):
                opened.append(exchange(port, request, context))
            time.sleep(0.5)
            before = peer.process.memory()
            for _ in range(self.connections):
                opened.append(exchange(port, request, context))
            time.sleep(1.5)
            after = peer.process.memory()
            closed = sum(1 for connection in opened if not still_open(connection))
        finally:
            for connection in opened:
                connection.close()
        return Sample(
            value=(after.private - before.private) / 1024 / self.connections,
            memory_mib=after.proportional / 2**20,
            errors=closed,
            note=f"{closed} closed" if closed else "",
            more={"Pss KiB/connection": (after.proportional - before.proportional) / 1024 / self.connections},
        )


def client_context(certificate):
    context = ssl.create_default_context(cafile=certificate)
    context.check_hostname = False
    return context


def exchange(port, request, context=None):
    """A connection that has had one answer and stays open."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    # Or a request would wait for the acknowledgement of the handshake's end: 40 ms each.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context:
        connection = context.wrap_socket(connection, server_hostname="bench.example.com")
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer or len(answer.split(b"\r\n\r\n", 1)[1]) < 1024:
        part = connection.recv(65536)
        if not part:
            raise RuntimeError("the connection was closed before its answer")
        answer += part
    return connection


def still_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


class Start(Scenario):
    """From the start of the process to the first answer through its last route."""

    def warm_up(self, peer):
        pass

    def measure(self, peer, _seconds):
        peer.stop()
        began = time.monotonic()
        peer.launch()
        peer.wait_ready(lambda: self.ready(peer, peer.setup))
        elapsed = time.monotonic() - began
        return Sample(
            value=elapsed * 1e3,
            memory_mib=peer.process.memory().proportional / 2**20,
            more={"CPU ms": sum(peer.process.cpu_seconds()) * 1e3},
        )


class Reload(Scenario):
    """From a changed file to the first answer through the route it adds."""

    def warm_up(self, peer):
        pass

    def measure(self, peer, _seconds):
        host = f"added-{len(peer.setup.extra_hosts)}.example.com"
        setup = replace(peer.setup, extra_hosts=[*peer.setup.extra_hosts, host])
        before = sum(peer.process.cpu_seconds())
        began = time.monotonic()
        peer.reload(setup)
        wait_until(lambda: answers(peer, self.path, host, False), peer.patience, f"{peer.name}: reload", peer.process)
        elapsed = time.monotonic() - began
        peer.setup = setup
        return Sample(
            value=elapsed * 1e3,
            memory_mib=peer.process.memory().proportional / 2**20,
            more={"CPU ms": (sum(peer.process.cpu_seconds()) - before) * 1e3},
        )


class ReloadUnderLoad(Scenario):
    """The cost and the casualties of a new configuration every second."""

    def warm_up(self, peer):
        load.wrk(peer.url(self.path), 1, peer.logs, host=self.host(peer.setup))

    def measure(self, peer, seconds):
        ended = threading.Event()
        failures = []

        def keep_reloading():
            count = 0
            while not ended.wait(1):
                count += 1
                try:
                    peer.reload(replace(peer.setup, extra_hosts=[f"added-{count}.example.com"]))
                except OSError as error:
                    failures.append(str(error))

        thread = threading.Thread(target=keep_reloading)
        thread.start()
        try:
            host = peer.setup.hosts()[0]
            self.load = lambda peer, seconds: load.wrk(peer.url(self.path), seconds, peer.logs, host=host)
            sample = super().measure(peer, seconds)
        finally:
            self.load = None
            ended.set()
            thread.join()
        sample.errors += len(failures)
        sample.note = ", ".join([sample.note, *failures[:1]]).strip(", ")
        return sample


def catalogue():
    many = [
        Scenario(f"routers-{n}", f"{n} routes by host and path, 512 of them asked in turn", {"routers": n},
                 path="/api/items", load=routers_load(n))
        for n in (10, 1_000, 10_000, 100_000)
    ]
    watched = {"metrics": True, "health_check": True}
    return [
        Scenario("small", "64 keep-alive connections, 1 KiB answers", load=wrk()),
        Scenario("one-connection", "one keep-alive connection", load=wrk(connections=1)),
        Scenario("5000-connections", "5000 keep-alive connections", least_seconds=8, load=wrk(connections=5000)),
        Scenario("new-connection", "one TCP connection per request", load=wrk(close=True)),
        Scenario("tls", "64 keep-alive connections over TLS 1.3", tls=True, load=wrk(tls=True)),
        Scenario("tls-handshakes", "one full TLS 1.3 handshake per request", tls=True, load=handshakes(False)),
        Scenario("tls-resumed", "one resumed TLS 1.3 handshake per request", tls=True, load=handshakes(True)),
        Scenario("h2", "HTTP/2 over TLS, 16 connections x 16 streams", tls=True,
                 load=lambda peer, seconds: load.h2load(peer.url(tls=True), seconds, peer.logs)),
        Scenario("h3", "HTTP/3, 16 connections x 16 streams", {"http3": True}, needs=frozenset({"http3"}), tls=True,
                 load=lambda peer, seconds: load.http3(peer.https, seconds, peer.setup.certificate)),
        Scenario("download-1m", "1 MiB answers, 16 connections", load=wrk("/size/1048576", connections=16)),
        Scenario("upload-1m", "1 MiB requests, 16 connections", load=wrk(connections=16, body_bytes=2**20)),
        Scenario("websocket", "64 connections, echoed messages of 128 bytes", {"upgrades": True},
                 load=lambda peer, seconds: load.websocket(peer.http, seconds)),
        *many,
        Scenario("middlewares-0", "the path of middlewares-5 without a middleware", load=wrk("/api/items")),
        Scenario("middlewares-5", "IP allow-list, rate limit, two path rewrites, headers both ways",
                 {"middlewares": True}, needs=frozenset({"middlewares"}), path="/api/items", load=wrk("/api/items")),
        Scenario("log", "JSON access log to a file, and Prometheus metrics where the product has them",
                 {"access_log": True, "metrics": True}, needs=frozenset({"access_log"}), load=wrk()),
        Scenario("watched", "Vigie with metrics and health checks; its peers with nothing of the sort",
                 vigie=watched, load=wrk()),
        Scenario("all-on", "the same with JSON access log as well",
                 vigie=watched | {"access_log": True}, load=wrk()),
        Idle("idle", "8000 idle connections after one request each; private memory per connection",
             unit="KiB/connection", restarts=True),
        Idle("idle-tls", "8000 idle TLS 1.3 connections after one request each; private memory per connection",
             unit="KiB/connection", tls=True, restarts=True),
        Scenario("latency-30", "64 connections at 30 % of what the first peer serves at most", load=Paced(0.3)),
        Scenario("latency-70", "64 connections at 70 % of what the first peer serves at most", load=Paced(0.7)),
        Start("start-10000", "start to first answer with 10,000 routes", {"routers": 10_000}, unit="ms",
              needs=frozenset({"reload"}), path="/api/items"),
        Reload("reload-10000", "changed file to first answer with 10,000 routes", {"routers": 10_000, "reloads": True},
               unit="ms", needs=frozenset({"reload"}), path="/api/items"),
        ReloadUnderLoad("reload-every-second", "64 connections while 100 routes are reloaded every second",
                        {"routers": 100, "reloads": True}, needs=frozenset({"reload"}), path="/api/items",
                        least_seconds=3, peers_may_fail=True),
    ]
