"""`make bench-service`: what the service costs its callers, while it records.

Prints a Markdown table: latencies of Describe and Pause at a steady rate with one recording running, and that recording's
frames; from Pause to `paused`; from Start to `recording`; the size of the binary; and the time from the start of the function's
process to its first wait for an event, as Lambda's Runtime Interface Emulator reports it (scripts/setup.sh test fetches it).
"""
import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PANOREC = ROOT / "target/release/panorec"
SERVE_PAGES = ROOT / "target/release/examples/serve"
EMULATOR = ROOT / ".tools/aws-lambda-rie"
WORKERS = 8


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Service:
    def __init__(self, directory, arguments=(), meter=None):
        command = [PANOREC, "serve", "--listen", "127.0.0.1:0", "--data", directory, "--allow-address", "127.0.0.0/8", *arguments]
        self.process = subprocess.Popen(
            meter.command([str(word) for word in command]) if meter else command,
            stdout=subprocess.PIPE, stderr=open(Path(directory) / "log", "w"), text=True)
        self.address = re.search(r"http://([^,]+),", self.process.stdout.readline()).group(1)
        self.local = threading.local()

    def act(self, action, **data):
        """Answer and seconds, on a connection that is kept while it is used; the gateway closes idle ones."""
        if time.monotonic() - getattr(self.local, "used", 0) > 5:
            self.local.connection = http.client.HTTPConnection(self.address)
            self.local.connection.connect()
            self.local.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local.used = time.monotonic()
        body = json.dumps({"Action": action, "Data": data})
        began = time.perf_counter()
        self.local.connection.request("POST", "/record", body, {"content-type": "application/json"})
        response = self.local.connection.getresponse()
        answer = json.loads(response.read())
        seconds = time.perf_counter() - began
        if response.status != 200:
            raise RuntimeError(f"{action}: {answer}")
        return answer, seconds

    def until(self, task, status, step=0.005):
        began = time.perf_counter()
        while self.act("Describe", TaskID=task)[0]["Status"] != status:
            if time.perf_counter() - began > 30:
                raise RuntimeError(f"never {status}")
            time.sleep(step)
        return time.perf_counter() - began

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def steady(service, task, rate, seconds):
    """Requests at a steady rate over all workers; every tenth is a Pause or the Resume that follows it."""
    latencies, lock = [], threading.Lock()
    began = time.perf_counter() + 0.1

    def work(worker):
        mine = []
        for n in range(worker, int(rate * seconds), WORKERS):
            wait = began + n / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            mine.append(service.act("Describe", TaskID=task)[1] if n % 10 else service.act("Resume", TaskID=task)[1])
        with lock:
            latencies.extend(mine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return latencies


def recorded(service, page, seconds, meanwhile=None):
    task = service.act("Start", RecordURL=page)[0]["TaskID"]
    started = service.until(task, "recording")
    found = meanwhile(task) if meanwhile else time.sleep(seconds)
    service.act("Stop", TaskID=task)
    finished = service.until(task, "finished")
    return service.act("Describe", TaskID=task)[0]["Result"], started, finished, found


def commands(service, page, rounds):
    task = service.act("Start", RecordURL=page)[0]["TaskID"]
    service.until(task, "recording")
    delays = []
    for _ in range(rounds):
        for action, status in (("Pause", "paused"), ("Resume", "recording")):
            service.act(action, TaskID=task)
            delays.append(service.until(task, status))
            time.sleep(0.137)  # so that the recorder's own rhythm is met everywhere
    service.act("Stop", TaskID=task)
    service.until(task, "finished")
    return delays


FUNCTION = {"AWS_LAMBDA_FUNCTION_NAME": "recorder", "AWS_REGION": "us-east-1", "PANOREC_TABLE": "none", "COS_BUCKET": "none",
            "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "2048",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_LOG_GROUP_NAME": "none", "AWS_LAMBDA_LOG_STREAM_NAME": "none"}


def emulated(rounds):
    """One event through the real emulator, each time in a new environment: answer, and seconds from the start of the process to
    its wait for the event, as the emulator reports them."""
    found = []
    for _ in range(rounds):
        port = free_port()
        with tempfile.TemporaryFile("w+") as log:
            process = subprocess.Popen(
                [EMULATOR, "--log-level", "info", "--runtime-interface-emulator-address", f"127.0.0.1:{port}",
                 "--runtime-api-address", f"127.0.0.1:{free_port()}", PANOREC], env={**os.environ, **FUNCTION}, stdout=log,
                stderr=log)
            try:
                answer = asked(port, {"version": "2.0", "requestContext": {"http": {"method": "GET"}}})
            finally:
                process.terminate()
                process.wait()
            if answer["statusCode"] != 405:
                raise RuntimeError(f"the emulator's answer to a GET is {answer}")
            log.seek(0)
            found.append(float(re.search(r"INIT REPORT\(durationMs: ([0-9.]+)\)", log.read()).group(1)) / 1000)
    return found


def asked(port, event):
    for _ in range(500):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("POST", "/2015-03-31/functions/function/invocations", json.dumps(event))
            return json.loads(connection.getresponse().read())
        except ConnectionRefusedError:
            time.sleep(0.01)
    raise RuntimeError("the emulator does not listen")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    pages = subprocess.Popen([SERVE_PAGES, "tests/pages", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    directory = tempfile.mkdtemp(prefix="panorec-bench-")
    service = None
    try:
        page = re.search(r"http://\S+?(?=/|\s|$)", pages.stdout.readline()).group(0) + "/animation.html"
        service = Service(directory)
        recorded(service, page, 1)  # files of the browser in memory
        alone, started, finished, _ = recorded(service, page, options.seconds)
        load = lambda task: steady(service, task, options.rate, options.seconds)
        under, _, _, latencies = recorded(service, page, options.seconds, load)
        delays = commands(service, page, options.rounds)
        starts = emulated(9)
    finally:
        if service:
            service.end()
        pages.terminate()
        shutil.rmtree(directory, ignore_errors=True)
    ms = lambda seconds: f"{seconds * 1000:.1f} ms"
    rows = [
        (f"Describe and Resume at {options.rate}/s, p50 / p99", f"{ms(statistics.median(latencies))} / {ms(percentile(latencies, .99))}"),
        ("frames per second of the recording, alone / under these requests",
         f"{alone['Quality']['FrameRate']} / {under['Quality']['FrameRate']}"),
        ("from a command's answer to its status, p95", ms(percentile(delays, .95))),
        ("from Start to `recording`, warm", ms(started)),
        ("from Stop to `finished`", ms(finished)),
        ("from process start to its wait for the first event, under the emulator, median", ms(statistics.median(starts))),
        ("binary", f"{PANOREC.stat().st_size / 1e6:.1f} MB"),
    ]
    print("| measure | value |\n| --- | --- |")
    for name, value in rows:
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
