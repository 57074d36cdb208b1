"""The two recipes: panorec, and what others do (Xvfb + PulseAudio + ffmpeg x11grab).

Both run the same Chromium binary with the same flags as far as their displays allow, in private directories, with every
process inside the meter. A recipe is started on a page, left alone, and stopped as its user would stop it.
"""
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PANOREC = ROOT / "target/release/panorec"
CHROMIUM = "/usr/lib/chromium/chromium"  # behind Debian's wrapper, which adds flags of its own
DEBIAN_FFMPEG = "/usr/bin/ffmpeg"
# The recorded second costs the same at any length: this only ends a recorder whose bench died.
RECORDING_LIMIT_SECONDS = 300
STOP_SECONDS = 15.0
# The grabber cannot know when the page has painted; its users sleep.
PAINT_SECONDS = 4.0
START_SECONDS = 60.0

# What panorec gives its Chromium too (src/recording/browser/flags.rs), displays and control excepted. The bench compares
# both command lines while they run and prints what differs.
CHROMIUM_FLAGS = """
--kiosk --no-first-run --no-default-browser-check --hide-crash-restore-bubble --noerrdialogs --deny-permission-prompts
--disable-prompt-on-repost --disable-hang-monitor --disable-search-engine-choice-screen
--force-device-scale-factor=1 --force-color-profile=srgb --disable-lcd-text
--autoplay-policy=no-user-gesture-required --disable-background-timer-throttling --disable-renderer-backgrounding
--disable-backgrounding-occluded-windows --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader
--disable-dev-shm-usage --disable-background-networking --disable-component-update --disable-sync --disable-default-apps
--disable-extensions --disable-domain-reliability --disable-field-trial-config --disable-breakpad
--metrics-recording-only --password-store=basic --disk-cache-size=67108864
--disable-features=Translate,MediaRouter,DialMediaRouteProvider,GlobalMediaControls,LensOverlay,OptimizationHints,HttpsUpgrades,Prerender2,PreloadTopChromeWebUI,BackForwardCache
""".split()


class Size:
    """Picture and rates that both recipes are asked for."""

    width, height, fps, bitrate_kbit, audio_kbit = 1280, 720, 30, 2500, 128


class Run:
    """One started recipe: its processes, its directory, its file."""

    def __init__(self, meter, name):
        self.meter, self.name = meter, name
        self.dir = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
        self.file = self.dir / "out.mp4"
        self.tap = None  # what the encoder was given, losslessly, if asked for
        self.children = []
        self.said = ""

    def spawn(self, argv, env=None, **kwargs):
        log = open(self.dir / f"{Path(argv[0]).name}.log", "ab")
        kwargs.setdefault("stdout", log)
        child = subprocess.Popen(self.meter.command([str(a) for a in argv]), stdin=subprocess.DEVNULL, stderr=log,
                                 env=env, start_new_session=True, cwd=self.dir, **kwargs)
        log.close()
        self.children.append(child)
        return child

    def private_env(self, **more):
        """The user's environment without his display, sound server and home."""
        env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TZ")}
        return env | {"HOME": str(self.dir), "XDG_RUNTIME_DIR": str(self.dir)} | more

    def wait_until(self, what, true):
        deadline = time.monotonic() + START_SECONDS
        while not true():
            for child in self.children:
                if child.poll() is not None:
                    raise RuntimeError(f"{self.name}: {child.args[-1]} ended while {what} was waited for\n{self.logs()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: no {what} after {START_SECONDS:.0f} s\n{self.logs()}")
            time.sleep(0.05)

    def logs(self):
        tails = [f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in self.dir.glob("*.log")]
        return "\n".join(tails)

    def end(self, child, sig=signal.SIGTERM):
        """Ends one child, the hard way if it does not listen. Returns seconds it took."""
        began = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(sig)
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        return time.monotonic() - began

    def kill(self):
        """Whatever happened: nothing of this run is left."""
        for child in reversed(self.children):
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def remove(self):
        shutil.rmtree(self.dir, ignore_errors=True)


class Panorec(Run):
    """panorec record, as a user starts it."""

    def start(self, url, tap=False):
        env = dict(os.environ)
        if tap:
            env["PANOREC_FFMPEG"] = str(self.tapped_ffmpeg())
        size = Size
        self.json = open(self.dir / "said.json", "w+")
        self.recorder = self.spawn(
            [PANOREC, "record", url, "--output", self.file, "--duration", f"{RECORDING_LIMIT_SECONDS}s",
             "--width", size.width, "--height", size.height, "--fps", size.fps, "--bitrate", f"{size.bitrate_kbit}k",
             "--allow-address", "127.0.0.0/8", "--json"], env=env, stdout=self.json)

    def is_recording(self):
        """Whether a first segment has been stored."""
        return any(self.dir.glob(f".{self.file.name}.panorec/**/*.m4s"))

    def tapped_ffmpeg(self):
        """A stand-in for FFmpeg that keeps a copy of the pictures it is fed."""
        self.tap = self.dir / "tap.ivf"
        real = os.environ.get("PANOREC_FFMPEG", str(ROOT / ".tools/ffmpeg"))
        script = self.dir / "ffmpeg-with-tap"
        script.write_text(f'#!/bin/bash\nexec "{real}" "$@" < <(exec tee "{self.tap}")\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        return script

    def stop(self):
        took = self.end(self.recorder, signal.SIGINT)
        self.json.seek(0)
        text = self.json.read().strip()
        self.said = json.loads(text.splitlines()[-1]) if text else {}
        self.json.close()
        if self.recorder.returncode:
            raise RuntimeError(f"panorec ended with status {self.recorder.returncode}\n{self.logs()}")
        return took


class X11Grab(Run):
    """A display, a sound server, a browser and a screen grabber, wired up by hand."""

    preset = "veryfast"

    def start(self, url, tap=False):
        display = self.start_display()
        pulse = self.start_sound()
        env = self.private_env(DISPLAY=display, PULSE_SERVER=pulse)
        flags = [*CHROMIUM_FLAGS, "--ozone-platform=x11", "--start-fullscreen", "--window-position=0,0",
                 f"--window-size={Size.width},{Size.height}", f"--user-data-dir={self.dir}/profile"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self.browser = self.spawn([CHROMIUM, *flags, url], env=env)
        time.sleep(PAINT_SECONDS)
        self.grab(env, display, tap)

    def start_display(self):
        read, write = os.pipe()
        self.display = self.spawn(
            ["Xvfb", "-displayfd", write, "-screen", "0", f"{Size.width}x{Size.height}x24", "-nolisten", "tcp"],
            env=self.private_env(), pass_fds=[write])
        os.close(write)
        with os.fdopen(read) as number:
            text = number.readline().strip()  # ends when Xvfb is ready, or dead
        if not text:
            raise RuntimeError(f"Xvfb did not start\n{self.logs()}")
        return f":{text}"

    def start_sound(self):
        socket = self.dir / "pulse.sock"
        self.sound = self.spawn(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", "--disable-shm=yes",
             "-L", "module-null-sink sink_name=rec rate=48000 channels=2",
             "-L", f"module-native-protocol-unix socket={socket} auth-anonymous=1"], env=self.private_env())
        self.wait_until("sound server", socket.exists)
        return f"unix:{socket}"

    def grab(self, env, display, tap):
        size, rate = Size, f"{Size.bitrate_kbit}k"
        argv = [DEBIAN_FFMPEG, "-nostdin", "-hide_banner", "-loglevel", "warning", "-y",
                "-thread_queue_size", "512", "-f", "x11grab", "-draw_mouse", "0", "-framerate", size.fps,
                "-video_size", f"{size.width}x{size.height}", "-i", display,
                "-thread_queue_size", "512", "-f", "pulse", "-i", "rec.monitor",
                "-c:v", "libx264", "-preset", self.preset, "-pix_fmt", "yuv420p", "-b:v", rate, "-maxrate", rate,
                "-bufsize", f"{2 * size.bitrate_kbit}k", "-c:a", "aac", "-b:a", f"{size.audio_kbit}k",
                "-t", RECORDING_LIMIT_SECONDS, self.file]
        if tap:
            self.tap = self.dir / "tap.nut"
            argv += ["-map", "0:v", "-c:v", "rawvideo", "-pix_fmt", "yuv420p", self.tap]
        self.recorder = self.spawn(argv, env=env)

    def is_recording(self):
        """Whether the first pictures have been encoded: FFmpeg opens the file then, and writes to it when its buffer is full."""
        return self.file.exists()

    def stop(self):
        took = self.end(self.recorder, signal.SIGINT)
        for child in (self.browser, self.sound, self.display):
            self.end(child)
        return took


class X11GrabUltrafast(X11Grab):
    """The same with a cheap encoder: shows what of a ratio is the encoder's preset alone."""

    preset = "ultrafast"


RECIPES = {"x11grab": X11Grab, "x11grab-ultrafast": X11GrabUltrafast, "panorec": Panorec}
