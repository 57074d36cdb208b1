"""`make bench`: panorec against Xvfb + PulseAudio + ffmpeg x11grab, in one run on one machine, with sound.

Each page is recorded by both recipes in turn, A B A B, so that whatever else the machine does meets both. CPU is that of
every process of a recipe in a window in the middle of a recording: neither start-up nor the end is in it. Medians of the
rounds are compared. One more, shorter recording of each keeps what the encoder was fed, and the file is compared with it.
Prints a Markdown table; everything measured goes to target/bench/results.json.
"""
import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path

import colours
import judge
import meter as meters
import profile_cpu
from likeness import likeness
from pages import BEEPS_BY_CLOCK, CODES, SERVE, Pages
from recipes import CHROMIUM, DEBIAN_FFMPEG, PANOREC, RECIPES, Size

RESULTS = Path(__file__).resolve().parents[2] / "target/bench/results.json"
# From the first recorded bytes to the window: videos playing, start-up work over.
SETTLE_SECONDS = 3.0
# After the window, so that it lies in the recording whole.
TAIL_SECONDS = 0.5
LIKENESS_SECONDS = 10.0
URGENT_NICE = -10
# More CPU than this used by others, in cores, and what was measured is their doing as much as the recipes'.
QUIET_CORES = 0.2


def record(recipe, page, seconds, pages, tap=False, profile=False, urgent=False):
    """One recording. Returns what was measured."""
    meter = meters.open_meter()
    run = RECIPES[recipe](meter, recipe)
    try:
        began = time.monotonic()
        run.start(pages.url(page), tap)
        run.wait_until("recording", run.is_recording)
        time.sleep(SETTLE_SECONDS)
        if urgent:
            put_first(meter.pids())
        start = snapshot(meter, profile)
        time.sleep(seconds)
        end = snapshot(meter, profile)
        flags = profile_cpu.browser_flags(meter.pids())
        time.sleep(TAIL_SECONDS)
        alive = run.recorder.poll() is None
        finish = run.stop()
        if not alive:
            raise RuntimeError(f"{recipe} stopped recording by itself\n{run.logs()}")
        left = meters.end_all(meter)
        result = {"recipe": recipe, "page": page, "finish_s": finish, "children_left": left, "flags": flags,
                  "start_cpu_s": start["cpu"], "start_wall_s": start["at"] - began, **window(start, end)}
        result |= judge_file(run, page, tap)
        if tap and CODES[page] is None:
            result["rgb"] = colours.sameness(run.file, pages.url(page))
        if result["duration_s"] < seconds:
            # A machine too busy for the recipe: no error of the bench, but no number to quote either.
            print(f"{recipe}: only {result['duration_s']:.1f} s recorded of a window of {seconds} s", file=sys.stderr)
        if profile:
            result["profile"] = profile_cpu.difference(start["profile"], end["profile"], end["at"] - start["at"])
        return result
    finally:
        run.kill()
        meters.end_all(meter)
        meter.close()
        if os.environ.get("PANOREC_BENCH_KEEP"):
            print(f"kept {run.dir}", file=sys.stderr)
        else:
            run.remove()


def put_first(pids):
    """Puts the sessions of these processes before everybody else's (nice alone counts only inside a session)."""
    for pid in pids:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(URGENT_NICE))


def snapshot(meter, profile):
    busy, stolen = meters.machine_seconds()
    shot = {"at": time.monotonic(), "cpu": meter.seconds(), "busy": busy, "stolen": stolen}
    if profile:
        shot["profile"] = profile_cpu.snapshot(meter.pids())
    return shot


def window(start, end):
    seconds = end["at"] - start["at"]
    cpu = end["cpu"] - start["cpu"]
    return {"cpu": cpu / seconds, "others": max(0.0, (end["busy"] - start["busy"] - cpu) / seconds),
            "stolen": (end["stolen"] - start["stolen"]) / seconds, "window_s": seconds}


def judge_file(run, page, tap):
    result = {"ssim": None} | judge.judge(run.file, page in BEEPS_BY_CLOCK)
    if run.said:
        result["said"] = run.said
    if tap:
        result["ssim"] = likeness(run.file, run.tap, CODES[page], Size.fps, (Size.width, Size.height))
    return result


def median(results, key):
    values = [r[key] for r in results if r.get(key) is not None]
    return statistics.median(values) if values else None


def shown(value, digits):
    return "–" if value is None else f"{value:.{digits}f}"


def flag_difference(results, base, ours):
    """One line: what Chromium was told by one recipe only."""
    told = {name: {f for r in results if r["recipe"] == name for f in r.get("flags", [])} for name in (base, ours)}
    only = [f"{a}: {' '.join(sorted(told[a] - told[b])) or 'none'}" for a, b in ((ours, base), (base, ours))]
    return f"Chromium flags of one side only: {'; '.join(only)}"


def table(results, base, ours):
    """The comparison as Markdown: each cell `ours / base`, the CPU ratio in front."""
    lines = [f"| page | CPU ratio | CPU per recorded second, {ours} / {base} | distinct fps | jitter p95, ms | A/V offset, ms "
             "| SSIM | kbit/s | load of others |", "|" + " --- |" * 9]
    for page in dict.fromkeys(r["page"] for r in results):
        both = [[r for r in results if r["page"] == page and r["recipe"] == name] for name in (ours, base)]
        pair = lambda key, digits: " / ".join(shown(median(side, key), digits) for side in both)  # noqa: E731
        cpu = [median(side, "cpu") for side in both]
        ratio = cpu[0] / cpu[1] if None not in cpu else None
        lines.append(f"| {page} | **{shown(ratio, 2)}** | {pair('cpu', 3)} | {pair('fps', 2)} | {pair('jitter_ms', 1)} "
                     f"| {pair('av_ms', 0)} | {pair('ssim', 4)} | {pair('kbit', 0)} | {pair('others', 2)} |")
    return "\n".join(lines)


def machine():
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    versions = " · ".join(judge.run([p, "-version" if "ffmpeg" in p else "--version"]).decode().split("\n")[0][:60].strip()
                          for p in (CHROMIUM, DEBIAN_FFMPEG, judge.tool("ffmpeg")))
    return (f"{datetime.date.today()}, {os.cpu_count()} cores of {model[1] if model else platform.machine()}, "
            f"load {os.getloadavg()[0]:.1f} at the start · {versions}")


def arguments():
    parser = argparse.ArgumentParser(prog="tests/bench", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="recordings of each page by each recipe (default 3)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the measured window (default 20)")
    parser.add_argument("--pages", nargs="+", default=list(CODES), choices=list(CODES))
    parser.add_argument("--recipes", nargs=2, default=["x11grab", "panorec"], choices=list(RECIPES), metavar="RECIPE",
                        help=f"what is compared, the base first (of {', '.join(RECIPES)})")
    parser.add_argument("--urgent", action="store_true", help="put both recipes before everything else on a machine that "
                        "others use too (as root; no substitute for a quiet machine)")
    parser.add_argument("--no-ssim", action="store_true", help="leave the likeness recordings out")
    parser.add_argument("--profile", action="store_true", help="no comparison: split the last recipe's CPU by process and thread")
    return parser.parse_args()


def main():
    args = arguments()
    for program in (PANOREC, judge.JUDGE, SERVE):
        if not program.exists():
            sys.exit(f"{program} is not built; run: cargo build --release --bins --examples")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    where, results = machine(), []
    recipes = args.recipes[-1:] if args.profile else args.recipes
    with Pages() as pages:
        for page in args.pages:
            for number in range(args.rounds):
                for recipe in recipes:
                    results.append(record(recipe, page, args.seconds, pages, profile=args.profile, urgent=args.urgent))
                    tell(results[-1], f"{number + 1}/{args.rounds}")
            if not args.no_ssim and not args.profile:
                for recipe in recipes:
                    fed = record(recipe, page, LIKENESS_SECONDS, pages, tap=True, urgent=args.urgent)
                    tell(fed, "likeness")
                    # Only the likeness is taken: keeping the pictures costs CPU that is not the recipe's.
                    results.append({"recipe": recipe, "page": page, "ssim": fed["ssim"], "rgb": fed.get("rgb")})
    RESULTS.write_text(json.dumps({"where": where, "results": results}, indent=1))
    print(f"\n{where}; load {os.getloadavg()[0]:.1f} at the end\n")
    if max(r.get("others", 0) for r in results) > QUIET_CORES:
        print("**Others used this machine meanwhile: not to be quoted.**\n")
    if args.profile:
        print(profile_cpu.table(results))
    else:
        print(table(results, *args.recipes))
        rgb = [f"{name} {shown(median([r for r in results if r['recipe'] == name], 'rgb'), 4)}" for name in args.recipes[::-1]]
        print(f"\nStatic page against a lossless screenshot, SSIM in RGB: {', '.join(rgb)}")
        print("\n" + flag_difference(results, *args.recipes))
    left = sorted({name for r in results for name in r.get("children_left", [])})
    if left:
        sys.exit(f"processes left behind and ended by the bench: {', '.join(left)}")


def tell(result, what):
    print(f"{result['page']:>12} {result['recipe']:<17} {what:>8}: {result['cpu']:.3f} core, {shown(result['fps'], 2)} fps, "
          f"jitter {shown(result['jitter_ms'], 1)} ms, A/V {shown(result['av_ms'], 0)} ms, {result['kbit']:.0f} kbit/s, "
          f"SSIM {shown(result['ssim'], 4)}, others {result['others']:.2f} core, finish {result['finish_s']:.2f} s, "
          f"start-up {result['start_cpu_s']:.2f} CPU s in {result['start_wall_s']:.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
