"""The videos of the bench pages, made once by the static FFmpeg: names and contents as tests/pages ask for them.

Every video repeats after ten flash periods, so that looping goes on in step. The flash is burnt into the picture and the
beep into the sound of the same file: what a player should show and sound together.
"""
import subprocess

from judge import BEEP_HZ, PERIOD, tool

LOOPS = 10
FLASH_SECONDS, BEEP_SECONDS = 0.120, 0.080
SECONDS = LOOPS * PERIOD

# name: (size, pictures per second, region that flashes (x, y, width, height) or None, sound)
BEEP = f"0.4*sin(2*PI*{BEEP_HZ}*t)*lt(mod(t\\,{PERIOD})\\,{BEEP_SECONDS})"
VIDEOS = {
    "av30.mp4": ("640x360", 30, (0, 0, 640, 120), BEEP),
    "av25.mp4": ("640x360", 25, (0, 0, 640, 120), BEEP),
    "tone300.mp4": ("640x360", 30, None, "0.05*sin(2*PI*300*t)"),
    "tone500.mp4": ("640x360", 30, None, "0.05*sin(2*PI*500*t)"),
    "class.mp4": ("320x180", 25, (0, 140, 320, 40), f"{BEEP}+0.03*sin(2*PI*220*t)"),
}


def make(directory):
    """Makes what is not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for number, (name, (size, fps, flash, sound)) in enumerate(VIDEOS.items()):
        file = directory / name
        if file.exists():
            continue
        # Two sources that move in different ways, so that the three videos are not one.
        picture = f"testsrc2=s={size}:r={fps}:d={SECONDS}" if number % 2 == 0 else \
            f"mandelbrot=s={size}:r={fps}:end_pts={fps * 60}"
        filters = "format=yuv420p"
        if flash:
            x, y, width, height = flash
            for color, when in (("0x181818", f"gte(mod(t\\,{PERIOD})\\,{FLASH_SECONDS})"),
                                ("white", f"lt(mod(t\\,{PERIOD})\\,{FLASH_SECONDS})")):
                filters += f",drawbox=x={x}:y={y}:w={width}:h={height}:color={color}:t=fill:enable='{when}'"
        part = file.with_suffix(".part")
        subprocess.run(
            [tool("ffmpeg"), "-v", "error", "-y", "-f", "lavfi", "-i", picture, "-f", "lavfi", "-i",
             f"aevalsrc='{sound}':s=48000", "-t", str(SECONDS), "-vf", filters, "-c:v", "libx264", "-preset", "fast",
             "-crf", "23", "-g", str(fps), "-c:a", "aac", "-b:a", "96k", "-ac", "2", "-movflags", "+faststart", "-f",
             "mp4", str(part)], check=True, stdin=subprocess.DEVNULL)
        part.rename(file)
