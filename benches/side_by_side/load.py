"""Load generators: each call is one timed run and returns one `Load`."""

import json
import os
import re
import subprocess
from dataclasses import dataclass

from . import machine

# wrk's own summary counts; latencies in microseconds. A line of its own, so that it can be found.
WRK_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d %d %f %f %f\\n", summary.requests, summary.duration,
    e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
"""

WRK_ONE_REQUEST = """
wrk.method = "{method}"
wrk.headers["Host"] = "{host}"
{more}
"""

# Asks each host in turn. The heads are made once: the generator must stay cheaper than the proxies.
WRK_MANY_HOSTS = """
local heads, at = {{}}, 0
local hosts = {{ {hosts} }}
init = function(args)
  for i, host in ipairs(hosts) do
    heads[i] = wrk.format("GET", "{path}", {{ Host = host }})
  end
end
request = function()
  at = at % #heads + 1
  return heads[at]
end
"""


@dataclass
class Load:
    requests: int
    seconds: float
    errors: int = 0
    note: str = ""
    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None


def run(command, seconds):
    """Output of a generator that must end by itself soon after its time."""
    # A session of its own, as proxies and origin have: Linux weighs sessions, and the shell's must not count.
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, start_new_session=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout


def wrk(url, seconds, directory, connections=64, host="bench.example.com", hosts=None, body_bytes=0, close=False):
    if hosts:
        path = "/" + url.split("/", 3)[3]
        script = WRK_MANY_HOSTS.format(hosts=", ".join(f'"{name}"' for name in hosts), path=path)
    else:
        more = []
        if close:
            more.append('wrk.headers["Connection"] = "close"')
        if body_bytes:
            more.append(f'wrk.body = string.rep("x", {body_bytes})')
        script = WRK_ONE_REQUEST.format(
            method="POST" if body_bytes else "GET", host=host, more="\n".join(more)
        )
    file = directory / f"wrk-{os.getpid()}.lua"
    file.write_text(script + WRK_DONE)
    command = [machine.debian("wrk"), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    out = run([*command, "-s", str(file), url], seconds)
    numbers = re.search(r"^RESULT (.*)$", out, re.M).group(1).split()
    requests, duration, *errors = (int(n) for n in numbers[:7])
    p50, p99, p999 = (float(n) for n in numbers[7:])
    kinds = zip(("connect", "read", "write", "status", "timeout"), errors)
    note = ", ".join(f"{count} {kind}" for kind, count in kinds if count)
    # wrk counts an answer above 399 both as a request and as an error.
    return Load(requests, duration / 1e6, sum(errors), note, p50, p99, p999)


def h2load(url, seconds, directory, clients=16, streams=16, host="bench.example.com", rate=None):
    """With a `rate`: so many HTTP/1.1 requests per second in all; a client waits for its answer all the same."""
    log = directory / "h2load.log"
    log.unlink(missing_ok=True)  # it appends
    command = [machine.debian("h2load"), f"-c{clients}", f"-m{streams}", "-t1", "-D", str(seconds), "--log-file", str(log)]
    if rate:
        command += ["--h1", f"--rps={rate / clients:.1f}"]
    out = run([*command, "-H", f":authority: {host}", url], seconds)
    counts = re.search(r"^requests: (\d+) total, .*?(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out, re.M)
    ok = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out, re.M)
    protocol = re.search(r"^Application protocol: (\S+)", out, re.M)
    expected = "http/1.1" if rate else "h2"
    if not (counts and ok and protocol and protocol.group(1) == expected):
        raise RuntimeError(f"h2load spoke no {expected}:\n{out[-800:]}")
    succeeded, failed, errored, timeout = (int(n) for n in counts.groups()[1:])
    bad = sum(int(n) for n in ok.groups()[1:])
    note = ", ".join(f"{n} {kind}" for n, kind in ((failed, "failed"), (errored, "errored"), (timeout, "timeout")) if n)
    # Of each request: start, status, microseconds.
    latencies = sorted(int(line.split()[2]) for line in open(log))
    percentiles = [latencies[int((len(latencies) - 1) * ratio)] if latencies else None for ratio in (0.5, 0.99, 0.999)]
    return Load(succeeded, seconds, max(failed, errored + timeout + bad), note, *percentiles)


def own(tool, seconds, **words):
    """A generator from benches/src/bin, which prints a `Load`."""
    words["seconds"] = seconds
    out = run([machine.tool(tool), *(f"{name}={value}" for name, value in words.items())], seconds)
    return Load(**json.loads(out))


def handshakes(port, seconds, certificate, resumed, connections=8):
    return own(
        "handshakes", seconds, target=f"127.0.0.1:{port}", name="bench.example.com", ca=certificate,
        connections=connections, sessions="resumed" if resumed else "full",
    )


def websocket(port, seconds, connections=64, size=128):
    return own("websocket", seconds, target=f"127.0.0.1:{port}", connections=connections, bytes=size)


def http3(port, seconds, certificate, connections=16, streams=16):
    return own(
        "http3", seconds, target=f"127.0.0.1:{port}", name="bench.example.com", ca=certificate,
        connections=connections, streams=streams,
    )
