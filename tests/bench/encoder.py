#!/usr/bin/env python3
"""Compares x264 settings with veryfast at 2500 kbit/s: CPU seconds per second, SSIM, bit rate.

usage: encoder.py FFMPEG CAPTURE.yuv... -- 'name=ffmpeg arguments'...
A capture is raw I420, 1280x720 at 30 fps. All settings take turns in every round, so that a busy machine slows all of
them; the ratio is the median of the rounds' ratios. Keyframes are forced where a recording has them.
"""
import os
import re
import statistics
import subprocess
import sys
import tempfile

ROUNDS = 3
VERYFAST = "-preset veryfast -b:v 2500k -maxrate 2500k -bufsize 5000k -g 60"
GRID = "-bf 0 -g 100000 -sc_threshold 0 -forced-idr 1 -force_key_frames expr:gte(t+0.016,n_forced*76800/48000)"
RAW = "-f rawvideo -pix_fmt yuv420p -s 1280x720 -framerate 30 -i"


def encode(ffmpeg, capture, arguments, out):
    command = f"{ffmpeg} -v error -y -nostdin {RAW} {capture} -fps_mode passthrough -c:v libx264 -threads 1 {arguments} {out}"
    process = subprocess.Popen(command.split())
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {command}")
    return usage.ru_utime + usage.ru_stime


def ssim(ffmpeg, capture, out):
    same_times = "settb=1/90000,setpts=N*3000"
    graph = f"[0:v]{same_times}[a];[1:v]{same_times}[b];[a][b]ssim"
    command = f"{ffmpeg} -hide_banner -nostdin -i {out} {RAW} {capture} -lavfi {graph} -f null -"
    text = subprocess.run(command.split(), capture_output=True, text=True, check=True).stderr
    return float(re.search(r"SSIM .*All:([\d.]+)", text)[1])


def compare(ffmpeg, capture, settings, out):
    seconds = os.path.getsize(capture) / (1280 * 720 * 1.5) / 30
    cpu = {name: [] for name in settings}
    quality, kbit = {}, {}
    for _ in range(ROUNDS):
        for name, arguments in settings.items():
            cpu[name].append(encode(ffmpeg, capture, arguments, out) / seconds)
            if name not in quality:
                quality[name] = ssim(ffmpeg, capture, out)
                kbit[name] = os.path.getsize(out) * 8 / seconds / 1000
    print(f"## {os.path.basename(capture)}")
    for name in settings:
        ratio = statistics.median(a / b for a, b in zip(cpu[name], cpu["veryfast"]))
        print(
            f"{name:24} cpu {statistics.median(cpu[name]):.4f} (min {min(cpu[name]):.4f}) ratio {ratio:.2f}"
            f"  ssim {quality[name]:.5f} ({quality[name] - quality['veryfast']:+.5f})  {kbit[name]:.0f} kbit/s",
            flush=True,
        )


def main():
    if "--" not in sys.argv:
        sys.exit(__doc__)
    split = sys.argv.index("--")
    ffmpeg, *captures = sys.argv[1:split]
    settings = {"veryfast": VERYFAST}
    for text in sys.argv[split + 1 :]:
        name, arguments = text.split("=", 1)
        settings[name] = f"{arguments} {GRID}"
    with tempfile.TemporaryDirectory() as scratch:
        for capture in captures:
            compare(ffmpeg, capture, settings, os.path.join(scratch, "out.mp4"))


if __name__ == "__main__":
    main()
