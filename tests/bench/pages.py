"""The four pages, served on loopback by the server of the end-to-end tests, and where the bar code is on them."""
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVE = ROOT / "target/release/examples/serve"

# Upper left corner of the bar code and the side of its cells. A static page has none: nothing on it may move.
CODES = {"static": None, "class": (960, 0, 8), "animation": (0, 0, 8), "three-videos": (0, 0, 8)}
# Pages that beep by the clock in their code, not by a video: there the judge needs no rounding to pictures.
BEEPS_BY_CLOCK = {"animation"}


class Pages:
    """The server, for as long as the bench runs; whatever ends the bench ends it too."""

    def __enter__(self):
        self.server = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", str(SERVE), str(ROOT / "tests/pages")],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.address = self.server.stdout.readline().strip()  # the videos have been made when it comes
        if not self.address:
            raise RuntimeError("the server of the pages did not start")
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.server.wait()

    def url(self, page):
        return f"{self.address}{page}.html"
