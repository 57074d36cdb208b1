"""`make bench-relay`: what the overlap of two invocations costs a recording.

Records through `panorec serve` with short invocations. Of each, a stretch in which it records alone says what a recorded second
costs; at the hand-over, everything that the service uses beyond that, from the start of the successor's process to the end of
the predecessor's, is the overlap's. Both are CPU of every process of the service, counted by the kernel (`meter.py`). A hand-over
costs the same whatever the length of an invocation, so the share follows for those of 15 minutes, which ask for the next one
871 s after their beginning (`task/budget.rs`). Time is what a platform bills: it is given beside the CPU.
"""
import argparse
import shutil
import statistics
import sys
import tempfile
import time

import meter as meters
from pages import CODES, Pages
from service import Service

# A 15-minute invocation that came up in less than 2.7 s has the least lead there is: 900 − 10 − 8 − 5 segments of 1.6 s.
PERIOD_SECONDS = 874.0
PROMISED = 0.05
# A page that has just come up still does what it does only once.
SETTLE_SECONDS = 8.0
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 180.0
# More CPU than this used by others, in cores, and what was measured is their doing as much as ours.
QUIET_CORES = 0.2


def recorders(meter):
    """Invocations that run, by their process."""
    found = []
    for pid in meter.pids():
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as line:
                words = line.read().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"panorec") and words[1:2] == [b"invoke"]:
            found.append(pid)
    return set(found)


def until(meter, so, what):
    """Waits until something is so of the recorders. Returns the moment and the CPU so far."""
    began = time.monotonic()
    while not so(recorders(meter)):
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise RuntimeError(f"never {what}")
        time.sleep(LOOK_SECONDS)
    return time.monotonic(), meter.seconds()


def hand_over(meter, first):
    """One generation alone, then its hand-over: cores alone, seconds of both, CPU seconds beyond one recorder's."""
    time.sleep(SETTLE_SECONDS)
    start = time.monotonic(), meter.seconds()
    both = until(meter, lambda there: there - first, "a successor")
    alone = (both[1] - start[1]) / (both[0] - start[0])
    over = until(meter, lambda there: not there & first, "the end of the predecessor")
    seconds = over[0] - both[0]
    return alone, both[0] - start[0], seconds, over[1] - both[1] - alone * seconds


def measure(page, url, options):
    meter = meters.open_meter()
    directory = tempfile.mkdtemp(prefix="panorec-bench-")
    service, found = None, []
    try:
        service = Service(directory, ["--invocation-timeout", f"{options.invocation}s"], meter)
        task = service.act("Start", RecordURL=url)[0]["TaskID"]
        service.until(task, "recording")
        began, used = time.monotonic(), meters.machine_seconds()[0]
        own = meter.seconds()
        for number in range(options.rounds):
            found.append(hand_over(meter, recorders(meter)))
            print("{}: {:.3f} core alone ({:.0f} s), overlap {:.1f} s, {:.2f} CPU s beyond".format(
                f"{page} {number + 1}/{options.rounds}", *found[-1]), file=sys.stderr, flush=True)
        others = (meters.machine_seconds()[0] - used - (meter.seconds() - own)) / (time.monotonic() - began)
        service.act("Stop", TaskID=task)
        service.until(task, "finished", 0.1)
        result = service.act("Describe", TaskID=task)[0]["Result"]
        if result["Quality"]["Gaps"] or result.get("ErrorCode"):
            raise RuntimeError(f"no clean hand-overs: {result}")
    finally:
        if service:
            service.end()
        left = meters.end_all(meter)
        meter.close()
        shutil.rmtree(directory, ignore_errors=True)
    if left:
        raise RuntimeError(f"processes left behind: {left}")
    return found, others


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="hand-overs of each page (default 3)")
    parser.add_argument("--invocation", type=int, default=90, help="length of an invocation, s (default 90)")
    parser.add_argument("--pages", nargs="+", default=["class", "animation"], choices=list(CODES))
    options = parser.parse_args()
    rows, busy = [], 0.0
    with Pages() as pages:
        for page in options.pages:
            found, others = measure(page, pages.url(page), options)
            busy = max(busy, others)
            alone, _, seconds, beyond = (statistics.median(values) for values in zip(*found))
            cpu, billed = beyond / (alone * PERIOD_SECONDS), seconds / PERIOD_SECONDS
            rows.append(f"| {page} | {alone:.3f} | {seconds:.1f} s | {beyond:.2f} s | **{cpu:.1%}** | **{billed:.1%}** | {others:.2f} |")
    if busy > QUIET_CORES:
        print("**Others used this machine meanwhile: not to be quoted.**\n")
    print(f"Of {PROMISED:.0%} that are allowed, medians of {options.rounds} hand-overs:\n")
    print("| page | cores alone | overlap | CPU beyond one recorder's | share of CPU at 15 minutes | share of billed time | load of others |")
    print("|" + " --- |" * 7)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
