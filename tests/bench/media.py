"""The videos of the bench pages, made once by the static FFmpeg: the twin of tests/e2e/media.rs.

A flash is burnt into the upper third of the picture and a beep into the sound of the same file, at the same instant: what
a player should show and sound together. A minute long, so that a recording of the bench sees no loop.
"""
import subprocess

from judge import tool

PERIODS = 60
SAMPLE_RATE = 48_000

# name: (size, pictures per second, pictures from flash to flash or 0, what moves, tone Hz, its gain)
VIDEOS = {
    "av30.mp4": ("640x360", 30, 31, "testsrc2=", 440, 0.05),
    # A camera: soft shapes and the noise of its sensor, which no encoder gets for nothing.
    "class.mp4": ("320x180", 25, 26, "gradients=speed=0.02:nb_colors=4:", 440, 0.05),
    "tone300.mp4": ("640x360", 30, 0, "gradients=speed=0.05:nb_colors=5:", 300, 0.1),
    "tone500.mp4": ("640x360", 30, 0, "testsrc=", 500, 0.1),
}
NOISY = {"class.mp4"}


def make(directory):
    """Makes what is not there yet."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, video in VIDEOS.items():
        file = directory / name
        if file.exists():
            continue
        part = file.with_suffix(".part")
        subprocess.run([tool("ffmpeg"), "-v", "error", "-y", *sources(*video, noisy=name in NOISY), "-c:v", "libx264",
                        "-preset", "veryfast", "-crf", "28", "-g", "50", "-pix_fmt", "yuv420p", "-c:a", "aac", "-b:a",
                        "160k", "-movflags", "+faststart", "-f", "mp4", str(part)], check=True, stdin=subprocess.DEVNULL)
        part.rename(file)


def sources(size, fps, period, motion, tone, gain, noisy):
    """FFmpeg's input options for picture and sound."""
    samples = SAMPLE_RATE // fps
    picture = f"{motion}s={size}:r={fps}" + (",noise=alls=3:allf=t" if noisy else "")
    sound = f"{gain}*sin(2*PI*{tone}*n/{SAMPLE_RATE})"
    seconds = 62.0
    if period:
        seconds = period * PERIODS / fps
        first, last = period // 2, period // 2 + fps * 12 // 100 - 1
        picture += (",drawbox=0:0:iw:ih/3:0x181818:fill,"
                    f"drawbox=0:0:iw:ih/3:white:fill:enable='between(mod(n,{period}),{first},{last})'")
        sound += (f"+0.5*sin(2*PI*2000*mod(n-{first * samples},{period * samples})/{SAMPLE_RATE})"
                  f"*lt(mod(n+{(period - first) * samples},{period * samples}),3840)")
    return ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"aevalsrc='{sound}':s={SAMPLE_RATE}", "-t", str(seconds)]
