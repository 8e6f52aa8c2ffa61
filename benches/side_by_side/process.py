"""A program under measurement: started on one core, its whole process tree accounted for."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Memory:
    """Bytes; `proportional` shares a page among those who map it, so a tree can be summed."""

    proportional: int = 0
    private: int = 0


class Process:
    def __init__(self, command, core, log, environment=None):
        self.log = log
        with open(log, "wb") as output:
            self.child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env={**os.environ, **(environment or {})},
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
                start_new_session=True,
            )
        self.pid = self.child.pid

    def alive(self):
        return self.child.poll() is None

    def signal(self, number):
        os.kill(self.pid, number)

    def tree(self):
        """Process ids of the program and everything it started."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = _stat(int(entry))
                if fields:
                    parents.setdefault(int(fields[1]), []).append(int(entry))
        found, waiting = [], [self.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            waiting.extend(parents.get(pid, ()))
        return found

    def cpu_seconds(self):
        """User and system time of the tree so far, children that have ended included."""
        user = system = 0
        for pid in self.tree():
            fields = _stat(pid)
            if fields:
                utime, stime, cutime, cstime = (int(field) for field in fields[11:15])
                user, system = user + utime + cutime, system + stime + cstime
        return user / TICKS, system / TICKS

    def memory(self):
        total = Memory()
        for pid in self.tree():
            try:
                lines = open(f"/proc/{pid}/smaps_rollup").read().splitlines()[1:]
            except OSError:  # it ended meanwhile
                continue
            for name, size in (line.split()[:2] for line in lines):
                if name == "Pss:":
                    total.proportional += int(size) * 1024
                elif name.startswith("Private_"):
                    total.private += int(size) * 1024
        return total

    def stop(self):
        """Ends the tree, politely first."""
        pids = self.tree()
        if self.alive():
            self.child.terminate()
            try:
                self.child.wait(timeout=1)
            except subprocess.TimeoutExpired:
                pass
        for pid in pids:
            # The group was ours alone; what is left of it has no reason to stay.
            try:
                if os.getpgid(pid) == self.pid:
                    os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.wait()

    def last_words(self):
        return self.log.read_text(errors="replace")[-2000:]


def _stat(pid):
    """Fields of /proc/<pid>/stat after the name: state, ppid, ..."""
    try:
        text = open(f"/proc/{pid}/stat").read()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def wait_until(condition, seconds, what, process=None):
    """Polls until `condition()` holds; raises with the program's last words otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        if process and not process.alive():
            raise RuntimeError(f"{what}: it ended with {process.child.returncode}\n{process.last_words()}")
        time.sleep(0.005)
    words = f"\n{process.last_words()}" if process else ""
    raise RuntimeError(f"{what}: not within {seconds} s{words}")
