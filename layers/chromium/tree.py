#!/usr/bin/env python3
"""Chooses from unpacked packages what Chromium needs to run without any system. Usage: tree.py STAGE TREE LICENCES

TREE gets the program, its resources, every library down to the C library and its loader, and fonts; LICENCES the
copyright file of each package. Nothing is run, so any architecture can be put together on any machine.
"""

import pathlib
import shutil
import struct
import sys

# Where the tree lies when it runs. The loader's path is written into the program, in place of the system's, so it must
# be shorter than that (25 characters on arm64): then neither the layout of the file nor /proc/self/exe changes.
TARGET = "/tmp/chromium"
LOADER = f"{TARGET}/ld.so"

# The other locales, the crash handler, the Vulkan validation layers and the double-size pictures are never used.
BROWSER = (
    "chromium", "chrome_100_percent.pak", "resources.pak", "icudtl.dat", "snapshot_blob.bin", "v8_context_snapshot.bin",
    "locales/en-US.pak",
    # WebGL in software
    "libEGL.so", "libGLESv2.so", "libvk_swiftshader.so", "libvulkan.so.1", "vk_swiftshader_icd.json",
)
# Loaded by name at run time, so that no header lists them: NSS's modules, and the C library's name services.
LOADED_LATER = (
    "libsoftokn3.so", "libfreebl3.so", "libfreeblpriv3.so", "libnssckbi.so", "libnss_dns.so.2", "libnss_files.so.2",
    "libresolv.so.2",
)
FONTS = ("truetype/dejavu", "truetype/liberation", "truetype/noto", "truetype/wqy")

PT_LOAD, PT_DYNAMIC, PT_INTERP = 1, 2, 3
DT_NEEDED, DT_STRTAB = 1, 5


def segments(elf):
    """(type, offset, address, bytes in the file) of each program header of a 64-bit little-endian ELF file."""
    at, size, count = struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54)
    for i in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", elf, at + i * size)
        yield kind, offset, address, length


def text(elf, at):
    return elf[at : elf.index(b"\0", at)].decode()


def needed(elf):
    """Names of the libraries that a file asks its loader for."""
    headers = list(segments(elf))
    for kind, offset, _, length in headers:
        if kind != PT_DYNAMIC:
            continue
        entries = list(struct.iter_unpack("<QQ", elf[offset : offset + length - length % 16]))
        strings = next(value for tag, value in entries if tag == DT_STRTAB)
        strings = next(o + strings - a for k, o, a, n in headers if k == PT_LOAD and a <= strings < a + n)
        return [text(elf, strings + value) for tag, value in entries if tag == DT_NEEDED]
    return []


def libraries(stage):
    """Where each library lies. The system's directories come before those of plug-ins."""
    found = {}
    files = [p for p in stage.glob("**/*.so*") if p.exists() and not p.is_dir()]
    for path in sorted(files, key=lambda p: (len(p.parts), p)):
        if "chromium" not in path.relative_to(stage).parts:
            found.setdefault(path.name, path)
    return found


def closure(stage, tree):
    known = libraries(stage)
    missing, done = [], set()
    todo = [*LOADED_LATER]
    for file in BROWSER:
        if file == "chromium" or ".so" in file:
            todo += needed((tree / file).read_bytes())
    while todo:
        name = todo.pop()
        if name in done or (tree / name).exists():
            continue
        done.add(name)
        if name not in known:
            missing.append(name)
            continue
        data = known[name].read_bytes()
        (tree / "lib" / name).write_bytes(data)
        (tree / "lib" / name).chmod(0o755)
        todo += needed(data)
    if missing:
        sys.exit(f"layer: error: nobody owns {', '.join(sorted(missing))}; add the package to packages.txt and run pin.sh")


def own_loader(tree):
    program = tree / "chromium"
    elf = bytearray(program.read_bytes())
    offset, length = next((o, n) for k, o, _, n in segments(elf) if k == PT_INTERP)
    name = text(elf, offset).rsplit("/", 1)[1]
    if len(LOADER) + 1 > length:
        sys.exit(f"layer: error: {LOADER} is longer than the loader's path in the program, {length - 1} characters")
    elf[offset : offset + length] = LOADER.encode().ljust(length, b"\0")
    program.write_bytes(elf)
    (tree / "ld.so").symlink_to(f"lib/{name}")
    if not (tree / "lib" / name).exists():
        sys.exit(f"layer: error: the loader {name} is not among the libraries")


def main():
    stage, tree, licences = map(pathlib.Path, sys.argv[1:])
    for directory in (tree, licences):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
    (tree / "lib").mkdir()
    (tree / "locales").mkdir()
    for file in BROWSER:
        shutil.copy(stage / "usr/lib/chromium" / file, tree / file)
    closure(stage, tree)
    own_loader(tree)
    for directory in FONTS:
        for font in sorted((stage / "usr/share/fonts" / directory).iterdir()):
            (tree / "fonts").mkdir(exist_ok=True)
            shutil.copy(font, tree / "fonts" / font.name)
    shutil.copy(pathlib.Path(__file__).with_name("fonts.conf"), tree / "fonts.conf")
    for copyright in sorted(stage.glob("usr/share/doc/*/copyright")):
        if copyright.exists():
            shutil.copy(copyright, licences / copyright.parent.name)


main()
