"""Where a recipe's CPU goes: by kind of process, and by thread of the same name within it."""
import os
from pathlib import Path

from meter import process_stat


def kind(pid, name):
    """What a process is: Chromium's by their --type, others by their name."""
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
    except OSError:
        return name
    flag = {a.split("=")[0]: a.split("=", 1)[1] for a in argv if a.startswith("--") and "=" in a}
    if "chrom" not in os.path.basename(argv[0] if argv else "") and "--type" not in flag:
        return name
    if "--type" not in flag:
        return "chromium: browser"
    sub = flag.get("--utility-sub-type", "").split(".")[-1]
    return f"chromium: {flag['--type']}" + (f" {sub}" if sub else "")


def browser_flags(pids):
    """The command line of Chromium's first process among `pids`, without paths and port numbers."""
    for pid in pids:
        try:
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
        except OSError:
            continue
        if argv and os.path.basename(argv[0]) in ("chromium", "chrome") and "--type=" not in " ".join(argv):
            return [a for a in argv[1:] if a.startswith("--") and "/" not in a]
    return []


def snapshot(pids):
    """{(pid, kind): {thread id: (thread name, CPU seconds)}}"""
    shot = {}
    for pid in pids:
        stat = process_stat(pid)
        if not stat:
            continue
        threads = {}
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            if one := process_stat(pid, task):
                threads[task] = one[0], one[2]
        shot[pid, kind(pid, stat[0])] = threads | {"all": ("all", stat[2])}
    return shot


def difference(start, end, seconds):
    """{kind: {thread name: cores}}; "all" is the whole process, threads that have ended included."""
    cores = {}
    for key, threads in end.items():
        before, total = start.get(key, {}), cores.setdefault(key[1], {})
        for task, (name, used) in threads.items():
            total[name] = total.get(name, 0.0) + (used - before.get(task, ("", 0.0))[1]) / seconds
    return cores


def table(results):
    """Markdown: medians are not taken here, each recording stands for itself."""
    lines = []
    for result in results:
        lines += [f"\n### {result['page']}: {result['recipe']}, {result['cpu']:.3f} core in all, others {result['others']:.2f}", "",
                  "| process | core | threads |", "| --- | --- | --- |"]
        split = sorted(result["profile"].items(), key=lambda item: -item[1].get("all", 0))
        for name, threads in split:
            parts = sorted(((v, k) for k, v in threads.items() if k != "all" and v >= 0.0005), reverse=True)
            listed = ", ".join(f"{k} {v:.3f}" for v, k in parts[:10])
            lines.append(f"| {name} | {threads.get('all', 0):.3f} | {listed} |")
        seen = sum(t.get("all", 0) for t in result["profile"].values())
        lines.append(f"| (processes that came or went) | {max(0.0, result['cpu'] - seen):.3f} | |")
    return "\n".join(lines)
