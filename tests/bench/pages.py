"""The four pages, served on loopback, and where on them the judge looks."""
import functools
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import serve  # noqa: E402

PAGES = ROOT / "tests/pages"
MEDIA = ROOT / "target/bench/media"

# code: upper left corner of the bar code and the side of its cells. flash: a patch that lights up with the beep.
LAYOUT = {
    "static": {"code": None, "flash": None},
    "class": {"code": (960, 0, 8), "flash": (970, 30, 300, 25)},
    "animation": {"code": (0, 0, 8), "flash": (10, 30, 300, 20)},
    "three-videos": {"code": (0, 0, 8), "flash": (330, 30, 300, 60)},
}


class Handler(serve.Handler):
    """tests/pages, with the videos below /media, and a list of what was asked for."""

    def translate_path(self, path):
        clean = path.split("?")[0]
        if clean.startswith("/media/"):
            return str(MEDIA / Path(clean).name)
        return super().translate_path(path)

    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def do_POST(self):  # notes of the test pages: nobody listens here
        self.send_response(204)
        self.end_headers()


class Pages:
    """The server, for as long as the bench runs."""

    def __enter__(self):
        self.server = serve.Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(PAGES)))
        self.server.asked = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def open(self, page):
        """(URL, question whether the page has been fetched since)."""
        self.server.asked.clear()
        path = f"/{page}.html"
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}", lambda: path in self.server.asked
