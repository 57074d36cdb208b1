"""The static page as it came out against the page itself: a lossless screenshot by headless Chromium, compared in RGB.

Covers what the likeness of moving pages cannot see: the conversion to 4:2:0 and back, wrong matrices, pictures out of place.
Only the static page can be asked, because headless Chromium can be told to show the very same picture.
"""
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from recipes import CHROMIUM, CHROMIUM_FLAGS, DEBIAN_FFMPEG, Size

SCREENSHOT_SECONDS = 60
NOT_HEADLESS = {"--kiosk"}
# From the end: the picture has long settled there.
BEFORE_END_SECONDS = "-1"


def screenshot(url, png):
    """Renders `url` as a PNG file."""
    flags = [f for f in CHROMIUM_FLAGS if f not in NOT_HEADLESS]
    profile = tempfile.mkdtemp(prefix="bench-screenshot-")
    try:
        subprocess.run([CHROMIUM, *flags, "--headless", "--no-sandbox", f"--user-data-dir={profile}",
                        f"--window-size={Size.width},{Size.height}", "--virtual-time-budget=2000", f"--screenshot={png}", url],
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=SCREENSHOT_SECONDS, check=True)
    finally:
        shutil.rmtree(profile, ignore_errors=True)


def sameness(file, url):
    """SSIM over R, G and B of a late picture of `file`, decoded by the matrix it is marked with, against the page."""
    with tempfile.TemporaryDirectory(prefix="bench-colours-") as directory:
        png = Path(directory) / "page.png"
        screenshot(url, png)
        done = subprocess.run([DEBIAN_FFMPEG, "-hide_banner", "-sseof", BEFORE_END_SECONDS, "-i", str(file), "-i", str(png),
                               "-lavfi", "[0:v]trim=end_frame=1,scale,format=gbrp,setpts=0[a];[1:v]format=gbrp,setpts=0[b];"
                               "[a][b]ssim", "-f", "null", "-"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    found = re.search(r"SSIM R:.*All:([\d.]+)", done.stderr.decode(errors="replace"))
    if not found:
        raise RuntimeError(f"no SSIM of {file}\n{done.stderr.decode(errors='replace')[-1500:]}")
    return float(found[1])
