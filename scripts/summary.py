#!/usr/bin/env python3
"""Says of a recording what a person asks first. Usage: summary.py FILE JSON (what `panorec record --json` printed)."""
import json
import os
import subprocess
import sys
from pathlib import Path

FFPROBE = os.environ.get("PANOREC_FFPROBE", str(Path(__file__).resolve().parents[1] / ".tools/ffprobe"))


def probe(file):
    """What the file itself says, whatever its maker thinks of it."""
    out = subprocess.run([FFPROBE, "-v", "error", "-show_entries", "format=duration:stream=codec_type,width,height",
                          "-of", "json", file], capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout
    found = json.loads(out)
    pictures = next(s for s in found["streams"] if s["codec_type"] == "video")
    return float(found["format"]["duration"]), pictures["width"], pictures["height"]


def main():
    file, said = sys.argv[1:]
    answer = json.loads(Path(said).read_text().strip().splitlines()[-1])
    quality = answer.get("Quality", {})
    if not os.path.exists(file):
        sys.exit(f"record: there is no {file}")
    duration, width, height = probe(file)
    offset = quality.get("AvOffsetMs")
    lines = {
        "file": f"{os.path.abspath(file)} ({os.path.getsize(file) / 1e6:.1f} MB)",
        "picture": f"{width}×{height}",
        "duration": f"{duration:.2f} s",
        "distinct fps": f"{quality.get('FrameRate', float('nan')):.2f}",
        "dropped": quality.get("FramesDropped", "not measured"),
        "A/V offset": "not measured" if offset is None else f"{offset:+.1f} ms",
    }
    if gaps := quality.get("Gaps"):
        lines["gaps"] = ", ".join(f"{g['Duration']:.1f} s at {g['Start']:.1f} s ({g['Reason']})" for g in gaps)
    for name, value in lines.items():
        print(f"{name + ':':<14}{value}")


if __name__ == "__main__":
    main()
