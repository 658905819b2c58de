"""A server for the scripts beside this one, and requests to it by Python's own library."""

import base64
import http.client
import json
import os
import pathlib
import signal
import struct
import subprocess
import tempfile
import time
import zlib

KEY = "a-key-of-the-scripts"


class Server:
    """A server in a folder of its own, on a port of its own."""

    def __init__(self, *arguments, folder=None, key=None, port=0):
        self.own = tempfile.TemporaryDirectory()
        self.folder = folder or f"{self.own.name}/jobs"
        self.log = pathlib.Path(self.own.name) / "log"
        self.arguments = [os.environ["GENERATE"], "serve", "--folder", self.folder, *arguments]
        self.key = key
        self.port = port
        self.start()

    def environment(self):
        own = {"SD_GENERATE_STATE": "state", "SD_GENERATE_CACHE": "cache", "SD_GENERATE_CONFIG": "config.toml", "HF_HOME": "hub"}
        own = {name: f"{self.own.name}/{value}" for name, value in own.items()}
        key = {"SD_GENERATE_TOKEN": self.key} if self.key else {}
        return {**os.environ, "HF_HUB_OFFLINE": "1", **own, **key}

    def start(self):
        log = open(self.log, "a")
        command = [*self.arguments, "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=self.environment(), text=True)
        line = self.process.stdout.readline().strip()
        assert line.startswith("http://"), f"the server does not start: {self.log.read_text()}"
        self.url = line
        self.port = int(line.rsplit(":", 1)[1])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(timeout=60) == 0, self.log.read_text()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert "panicked" not in self.log.read_text(errors="replace"), self.log.read_text(errors="replace")
        self.own.cleanup()

    def memory(self, field="VmRSS"):
        """Bytes that the process has in memory; `RssAnon` without the pages of its own file."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024

    def request(self, method, path, body=None, headers=(), timeout=120):
        """The status and the body: JSON where it is some."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = dict(headers)
        if self.key:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.headers.get_content_type() == "application/json":
            data = json.loads(data)
        return answer.status, data

    def get(self, path):
        status, body = self.request("GET", path)
        assert status == 200, (path, status, body)
        return body

    def submit(self, **request):
        status, job = self.request("POST", "/api/jobs", request)
        assert status == 202, (status, job)
        return job["id"]

    def wait(self, job, seconds=120):
        end = time.time() + seconds
        while time.time() < end:
            found = self.get(f"/api/jobs/{job}")
            if found["state"] in ("done", "failed", "cancelled"):
                return found
            time.sleep(0.02)
        raise AssertionError(f"not within {seconds} seconds: {found}")

    def generated(self, prompt, **settings):
        """The file that the command makes."""
        path = f"{self.own.name}/expected.png"
        options = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        command = [os.environ["GENERATE"], prompt, *options, "--overwrite", "--output", path]
        subprocess.run(command, check=True, capture_output=True, env=self.environment())
        return pathlib.Path(path).read_bytes()


def png(width, height, pixel):
    """A PNG whose pixels are the red, green, blue and alpha that `pixel(x, y)` says."""
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x, y)) for x in range(width)) for y in range(height))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pixels(file):
    """The compressed pixels of a PNG, which two files of one image share whatever else they say."""
    found, at = [], 8
    while at < len(file):
        (length,) = struct.unpack_from(">I", file, at)
        if file[at + 4 : at + 8] == b"IDAT":
            found.append(file[at + 8 : at + 8 + length])
        at += 12 + length
    assert found, "it is no PNG"
    return zlib.decompress(b"".join(found))


def encoded(file):
    return base64.b64encode(file).decode()
