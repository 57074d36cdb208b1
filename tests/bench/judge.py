"""What is in a file, asked of the project's one judge (examples/judge.rs), and the bar codes of single pictures."""
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
JUDGE = ROOT / "target/release/examples/judge"
COLUMNS, ROWS, ROW_BITS = 40, 3, 36  # of tests/pages/code.js


def tool(name):
    return os.environ.get(f"PANOREC_{name.upper()}", str(ROOT / ".tools" / name))


def run(argv):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done.stdout


def judge(file, by_clock):
    """Seconds, kbit/s, distinct pictures per second, p95 of jitter and A/V offset in ms; None for what cannot be told."""
    report = json.loads(run([JUDGE, file]))
    bits = sum(int(size) for size in run([tool("ffprobe"), "-v", "error", "-select_streams", "v", "-show_entries",
                                          "packet=size", "-of", "csv=p=0", file]).decode().replace(",", " ").split()) * 8
    return {"duration_s": report["Duration"], "kbit": bits / 1000 / report["Duration"],
            "fps": report["DistinctFrameRate"], "jitter_ms": report["JitterP95Ms"],
            "av_ms": report["AvOffsetByClockMs" if by_clock else "AvOffsetMs"]}


def picture_times(file):
    """Time stamps of the pictures, seconds, edit list applied, in display order."""
    out = run([tool("ffprobe"), "-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time,flags",
               "-of", "csv=p=0", file]).decode()
    rows = [line.split(",") for line in out.split()]
    return sorted(float(row[0]) for row in rows if "D" not in row[1])  # D: cut away by the edit list


def crc16(data):
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def read_code(cells):
    """The 108 bits of 40×3 gray cells as one number, or None if they are not whole."""
    bits = 0
    for row in range(ROWS):
        lit = [c >= 128 for c in cells[row * COLUMNS:(row + 1) * COLUMNS]]
        if not lit[0] or lit[1] or lit[-2] or not lit[-1]:
            return None
        for bit in lit[2:2 + ROW_BITS]:
            bits = bits << 1 | bit
    body = bits >> 16
    whole = crc16((body >> 4).to_bytes(11, "big") + bytes([body & 15])) == bits & 0xFFFF
    return bits if whole else None


def read_codes(file, x, y, cell):
    """[(time, code or None)] of all pictures."""
    filters = (f"crop={COLUMNS * cell}:{ROWS * cell}:{x}:{y}:exact=1,scale={COLUMNS}:{ROWS}:flags=area,format=gray")
    raw = run([tool("ffmpeg"), "-v", "error", "-i", file, "-an", "-fps_mode", "passthrough", "-vf", filters,
               "-f", "rawvideo", "-"])
    pictures = [raw[i:i + COLUMNS * ROWS] for i in range(0, len(raw), COLUMNS * ROWS)]
    times = picture_times(file)
    if len(times) != len(pictures):
        raise RuntimeError(f"{file}: {len(pictures)} pictures decoded, {len(times)} in the index")
    return [(t, read_code(p)) for t, p in zip(times, pictures)]
