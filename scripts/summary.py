#!/usr/bin/env python3
"""Says of a recording what a person asks first. Usage: summary.py FILE JSON (what `panorec record --json` printed).

Whatever the file itself tells is measured from the file (examples/judge.rs: the demo page carries a bar code, flashes and
beeps). A page without them can only be described by what the recorder saw itself.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

JUDGE = Path(__file__).resolve().parents[1] / "target/release/examples/judge"


def main():
    file, said = sys.argv[1:]
    answer = json.loads(Path(said).read_text().strip().splitlines()[-1])
    quality = answer.get("Quality", {})
    if not os.path.exists(file):
        sys.exit(f"record: there is no {file}")
    judged = subprocess.run([JUDGE, file], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if judged.returncode:
        sys.exit(f"record: {judged.stderr.decode(errors='replace').strip()}")
    seen = json.loads(judged.stdout)

    def best(measured, told, unit, form):
        for value, whose in ((seen.get(measured), "measured from the file"), (quality.get(told), "by the recorder's own account")):
            if value is not None:
                return f"{value:{form}}{unit} ({whose})"
        return "cannot be told"

    lines = {
        "file": f"{os.path.abspath(file)} ({os.path.getsize(file) / 1e6:.1f} MB, {seen['Width']}×{seen['Height']})",
        "duration": f"{seen['Duration']:.2f} s",
        "distinct fps": best("DistinctFrameRate", "FrameRate", "", ".2f"),
        "A/V offset": best("AvOffsetMs", "AvOffsetMs", " ms", "+.1f"),
        "dropped": f"{quality.get('FramesDropped', 'not counted')} pictures",
    }
    if gaps := quality.get("Gaps"):
        lines["gaps"] = ", ".join(f"{g['Duration']:.1f} s at {g['Start']:.1f} s ({g['Reason']})" for g in gaps)
    for name, value in lines.items():
        print(f"{name + ':':<14}{value}")


if __name__ == "__main__":
    main()
