"""What is in a file: pictures told apart by their bar codes, and flashes against beeps.

The same judge, with the same static FFmpeg, looks at the files of all recipes. The bar code is that of tests/pages/code.js.
"""
import array
import bisect
import math
import os
import re
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLUMNS, ROWS, ROW_BITS = 40, 3, 36
PERIOD = 1.040  # seconds between two flashes, and between two beeps
SAMPLE_RATE = 48_000
BEEP_HZ = 2000
BEEP_WINDOW = 96  # samples: four periods of the beep, a whole number of which makes the bed tone drop out
BEEP_HOP = 24
# Start and end of a file are not judged: the page may still be loading, the last picture may be a closing one.
EDGE_SECONDS = 1.0


def tool(name):
    return os.environ.get(f"PANOREC_{name.upper()}", str(ROOT / ".tools" / name))


def run(argv):
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}\n{done.stderr.decode(errors='replace')[-2000:]}")
    return done


def picture_times(file):
    """Time stamps of the pictures, seconds, edit list applied, in display order."""
    out = run([tool("ffprobe"), "-v", "error", "-select_streams", "v", "-show_entries", "packet=pts_time,flags",
               "-of", "csv=p=0", file]).stdout.decode()
    rows = [line.split(",") for line in out.split()]
    return sorted(float(row[0]) for row in rows if "D" not in row[1])  # D: cut away by the edit list


def duration_and_bitrate(file):
    out = run([tool("ffprobe"), "-v", "error", "-select_streams", "v", "-show_entries",
               "stream=bit_rate:format=duration", "-of", "default=nk=1:nw=1", file]).stdout.decode().split()
    rate, duration = out
    return float(duration), float(rate) / 1000


def regions(file, filters, bytes_per_picture):
    """Each picture, cropped and scaled by `filters`, as gray bytes."""
    raw = run([tool("ffmpeg"), "-v", "error", "-i", file, "-an", "-fps_mode", "passthrough", "-vf", f"{filters},format=gray",
               "-f", "rawvideo", "-"]).stdout
    return [raw[i:i + bytes_per_picture] for i in range(0, len(raw), bytes_per_picture)]


def crc16(data):
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def read_code(cells):
    """(counter, wall clock ms, rAF time 0.1 ms) of 40×3 gray cells, or None."""
    bits = 0
    for row in range(ROWS):
        lit = [c >= 128 for c in cells[row * COLUMNS:(row + 1) * COLUMNS]]
        if not lit[0] or lit[1] or lit[-2] or not lit[-1]:
            return None
        for bit in lit[2:2 + ROW_BITS]:
            bits = bits << 1 | bit
    body = bits >> 16
    if crc16((body >> 4).to_bytes(11, "big") + bytes([body & 15])) != bits & 0xFFFF:
        return None
    return body >> 68, body >> 36 & 0xFFFFFFFF, body >> 4 & 0xFFFFFFFF


def read_codes(file, x, y, cell):
    """[(time, code)] of the pictures that have a legible code."""
    width, height = COLUMNS * cell, ROWS * cell
    filters = f"crop={width}:{height}:{x}:{y}:exact=1,scale={COLUMNS}:{ROWS}:flags=area"
    pictures = regions(file, filters, COLUMNS * ROWS)
    times = picture_times(file)
    if len(times) != len(pictures):
        raise RuntimeError(f"{file}: {len(pictures)} pictures decoded, {len(times)} in the index")
    codes = ((t, read_code(p)) for t, p in zip(times, pictures))
    return [(t, code) for t, code in codes if code]


def judge_codes(codes):
    """Distinct pictures per second, and the p95 of |time stamp − page's clock| around its median in ms."""
    if len(codes) < 2:
        return {"fps": None, "jitter_ms": None}
    first, last = codes[0][0] + EDGE_SECONDS, codes[-1][0] - EDGE_SECONDS
    seen = {}
    for t, code in codes:
        if first <= t < last:
            seen.setdefault(code[0], t - code[2] / 10_000)
    middle = statistics.median(seen.values())
    off = sorted(abs(v - middle) for v in seen.values())
    return {"fps": len(seen) / (last - first), "jitter_ms": 1000 * off[int(0.95 * (len(off) - 1))]}


def flashes(file, patch):
    """Times at which the patch (x, y, width, height) becomes bright."""
    x, y, width, height = patch
    levels = [p[0] for p in regions(file, f"crop={width}:{height}:{x}:{y}:exact=1,scale=1:1:flags=area", 1)]
    times = picture_times(file)
    half = (min(levels) + max(levels)) / 2
    if max(levels) - min(levels) < 40:
        return []
    return [times[i] for i in range(1, len(levels)) if levels[i] > half >= levels[i - 1]]


def beeps(file):
    """Times at which the beep begins: where its energy passes half of its maximum, on the file's own time line."""
    raw = run([tool("ffmpeg"), "-v", "error", "-i", file, "-vn", "-ac", "1", "-ar", SAMPLE_RATE, "-af",
               "aresample=async=1:first_pts=0", "-f", "s16le", "-"]).stdout
    samples = array.array("h")
    samples.frombytes(raw[: len(raw) // 2 * 2])
    turn = [2 * math.pi * BEEP_HZ * i / SAMPLE_RATE for i in range(BEEP_WINDOW)]
    cosine, sine = [math.cos(a) for a in turn], [math.sin(a) for a in turn]
    power = []
    for at in range(0, len(samples) - BEEP_WINDOW, BEEP_HOP):
        block = samples[at:at + BEEP_WINDOW]
        re_ = sum(map(float.__mul__, map(float, block), cosine))
        im = sum(map(float.__mul__, map(float, block), sine))
        power.append(math.hypot(re_, im))
    if not power or max(power) < 50 * BEEP_WINDOW:
        return []
    # Of an evenly filling window the half is reached when its middle passes the beginning.
    half = max(power) / 2
    starts = [i for i in range(1, len(power)) if power[i] > half >= power[i - 1]]
    return [(i * BEEP_HOP + BEEP_WINDOW / 2) / SAMPLE_RATE for i in starts]


def av_offset(file, patch):
    """Median of beep − flash in ms: positive when the sound is late. None if either is missing."""
    heard = beeps(file)
    if not heard:
        return None
    offsets = []
    for t in flashes(file, patch):
        at = bisect.bisect(heard, t)
        nearest = min((h - t for h in heard[max(0, at - 1):at + 1]), key=abs)
        if abs(nearest) < PERIOD / 2:
            offsets.append(1000 * nearest)
    return statistics.median(offsets) if len(offsets) > 2 else None
