#!/usr/bin/env python3
"""Compresses a tree for a layer. Usage: pack.py TREE TARGET OUT LEVEL

OUT gets `index.json` and the frames: the contents of all files in the index's order, one after the other, cut every
FRAME_BYTES and each piece compressed by itself, so that as many can be unpacked at a time as there are processors. The
reader is src/recording/bundle.rs. The same tree gives the same bytes, with the same zstd.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

# Small enough to keep all processors busy to the end, large enough to cost 1 % of the ratio.
FRAME_BYTES = 16 << 20


def files(tree):
    for path in sorted(tree.rglob("*")):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink():
            yield {"path": name, "link": os.readlink(path)}
        elif path.is_file():
            status = path.stat()
            yield {"path": name, "bytes": status.st_size, "executable": bool(status.st_mode & 0o100)}


def pieces(tree, entries):
    waiting = bytearray()
    for entry in entries:
        if "bytes" in entry:
            waiting += (tree / entry["path"]).read_bytes()
        while len(waiting) >= FRAME_BYTES:
            yield bytes(waiting[:FRAME_BYTES])
            del waiting[:FRAME_BYTES]
    if waiting:
        yield bytes(waiting)


def main():
    tree, target, out, level = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3]), int(sys.argv[4])
    out.mkdir(parents=True, exist_ok=True)

    def compress(numbered):
        number, piece = numbered
        name = f"{number:03}.zst"
        with open(out / name, "wb") as frame:
            subprocess.run(["zstd", "-q", f"-{level}", "--check", "-c"], input=piece, stdout=frame, check=True)
        return name

    entries = list(files(tree))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        frames = list(pool.map(compress, enumerate(pieces(tree, entries))))
    index = {"version": 1, "target": target, "frame_bytes": FRAME_BYTES, "frames": frames, "files": entries}
    (out / "index.json").write_text(json.dumps(index, indent=1) + "\n")
    plain = sum(entry.get("bytes", 0) for entry in entries)
    packed = sum((out / frame).stat().st_size for frame in frames)
    print(f"layer: {target}: {len(entries)} files, {plain:,} bytes, packed into {packed:,}", flush=True)


main()
