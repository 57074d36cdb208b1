#!/usr/bin/env python3
"""Serves a directory on 127.0.0.1 for as long as its parent lives. Prints the port, then nothing.

Range requests are answered, because a <video> asks for them; nothing is cached, so an edited page is seen at once.
Usage: serve.py DIRECTORY [PORT]    (port 0, the default: any free one)
"""
import ctypes
import functools
import http.server
import os
import re
import signal
import sys

PR_SET_PDEATHSIG = 1
BLOCK_BYTES = 1 << 16


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive and ranges

    def log_message(self, *args):
        pass

    def end_headers(self):
        self.send_header("Cache-Control", "no-store")
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def send_head(self):
        self.left = None
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        path = self.translate_path(self.path)
        if not wanted or wanted[0] == "bytes=-" or not os.path.isfile(path):
            return super().send_head()
        size = os.path.getsize(path)
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1 if first and last else size)
        if start >= end:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        file = open(path, "rb")
        file.seek(start)
        self.left = end - start
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Content-Length", str(self.left))
        self.end_headers()
        return file

    def copyfile(self, source, out):
        left = self.left
        try:
            while block := source.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
                out.write(block)
                if left is not None:
                    left -= len(block)
        except ConnectionError:
            self.close_connection = True  # the player has seen enough


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # a browser that goes away in the middle of a request is not an error of ours


def main():
    # Whatever ends the parent, kill -9 included, ends the server too.
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    directory = sys.argv[1]
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    server = Server(("127.0.0.1", port), functools.partial(Handler, directory=directory))
    print(server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
