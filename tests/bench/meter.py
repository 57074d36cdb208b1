"""CPU of a recipe: every process it starts, dead or alive, counted by the kernel and not by sampling.

A recipe runs in a control group of its own (version 2, or version 1's cpuacct), to which every descendant belongs
whatever session or parent it chooses. Where no group can be made, this process becomes the reaper of all orphans and the
times of the living and of the reaped are added up from /proc: the same sum, in steps of a clock tick.
"""
import contextlib
import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
# A finished recipe has this long to have no process left; what is left then is ended and reported.
EMPTY_SECONDS = 3.0


def process_stat(pid, task=None):
    """(name, parent, CPU seconds of its own, CPU seconds of the children it has waited for); None when gone."""
    path = f"/proc/{pid}/stat" if task is None else f"/proc/{pid}/task/{task}/stat"
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    user, system, child_user, child_system = (int(f) * TICK_SECONDS for f in fields[11:15])
    return name, int(fields[1]), user + system, child_user + child_system


def descendants(root):
    """Process ids below `root`, itself not included."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := process_stat(entry)):
            children.setdefault(stat[1], []).append(int(entry))
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


class ControlGroup:
    """Meter by a control group."""

    def __init__(self, directory, read):
        self.directory, self.read = directory, read

    def command(self, argv):
        """`argv`, so that it joins the group before it starts."""
        script = 'echo 0 > "$0/cgroup.procs"; exec "$@"'
        return ["/bin/sh", "-c", script, str(self.directory), *argv]

    def seconds(self):
        return self.read(self.directory)

    def pids(self):
        return [int(p) for p in (self.directory / "cgroup.procs").read_text().split()]

    def close(self):
        with contextlib.suppress(OSError):
            self.directory.rmdir()


class Reaper:
    """Meter by adopting orphans and adding up /proc."""

    def __init__(self):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.others = set(descendants(os.getpid()))  # the server of the pages
        self.start = 0.0
        self.start = self.seconds()

    def command(self, argv):
        return argv

    def seconds(self):
        own = os.times()
        total = own.children_user + own.children_system
        for pid in self.pids():
            if stat := process_stat(pid):
                total += stat[2] + stat[3]
        return total - self.start

    def pids(self):
        return [pid for pid in descendants(os.getpid()) if pid not in self.others]

    def close(self):
        pass


def _usage_v2(directory):
    for line in (directory / "cpu.stat").read_text().splitlines():
        if line.startswith("usage_usec"):
            return int(line.split()[1]) / 1e6
    raise OSError("no usage_usec")


def _usage_v1(directory):
    return int((directory / "cpuacct.usage").read_text()) / 1e9


def _own_groups():
    """Directories of the groups this process is in, where children of them may be made, with how to read them."""
    places = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup2":
            places[""] = mount
        elif kind == "cgroup" and "cpuacct" in options.split(","):
            places["cpuacct"] = mount
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for key, read in (("", _usage_v2), ("cpuacct", _usage_v1)):
            if key in places and key in controllers.split(","):
                yield Path(places[key] + path), read
                yield Path(places[key]), read  # inside a container the path may be the host's


def open_meter():
    """The best meter that works here."""
    for parent, read in _own_groups():
        directory = parent / f"panorec-bench-{os.getpid()}-{time.monotonic_ns()}"
        try:
            directory.mkdir()
        except OSError:
            continue
        meter = ControlGroup(directory, read)
        # A kernel may let the directory be made and still refuse processes or the reading.
        works = subprocess.run(meter.command(["true"]), stderr=subprocess.DEVNULL, check=False).returncode == 0
        with contextlib.suppress(OSError):
            if works and meter.seconds() > 0:
                return meter
        meter.close()
    return Reaper()


def end_all(meter):
    """Ends, by id, whatever is left in the meter. Returns the names of what had to be ended."""
    deadline = time.monotonic() + EMPTY_SECONDS
    while meter.pids() and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)
    left = []
    while pids := meter.pids():
        for pid in pids:
            stat = process_stat(pid)
            if stat and time.monotonic() < deadline + EMPTY_SECONDS:
                left.append(f"{stat[0]} ({pid})")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        reap()
        time.sleep(0.05)
    return sorted(set(left))


def reap():
    """Waits for adopted orphans that have ended (Popen objects cope with a child that was waited for here)."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def machine_seconds():
    """CPU seconds used by everybody on this machine, and stolen from it."""
    fields = [int(f) * TICK_SECONDS for f in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return user + nice + system + irq + softirq, steal
