#!/usr/bin/env python3
"""Thousands of malformed requests to all addresses: each is refused, and the server is as before.

    malformed.py [--requests 2000] [--seed 1]
"""

import argparse
import json
import pathlib
import random
import re
import socket
import time

from server import Server

SPECIFICATION = pathlib.Path(__file__).parents[2] / "src/openapi.json"
VALUES = [
    None, True, False, 0, -1, 1, 1.5, 1e308, -1e308, 2**53, 2**64, -(2**63), 10**40, "", " ", "a", "\0", "\ud7ff\uffff", "a" * 70_000, "../../etc/passwd",
    "/etc/passwd", "<lora:/etc/passwd:1>", "%00", "upload:../../etc/passwd", "data:image/png;base64,", "-1", "1e9", "NaN", "64x64", "0x0", "99999999x1", [], {},
    [[]], [None], ["a", 1], {"a": 1}, {"": ""}, [1] * 3000,
]
FIELDS = [
    "prompt", "negative_prompt", "model", "preset", "style", "size", "steps", "cfg", "guidance_rescale", "seed", "n", "sampler", "scheduler", "clip_skip", "rng", "lora",
    "vae", "embedding", "refiner", "refiner_switch", "upscale", "upscaler", "init_image", "mask", "strength", "control", "format", "jpeg_quality", "priority", "strict",
    "response_format", "stream", "partial_images", "user", "output_format", "output_compression", "background", "width", "height", "batch_size", "n_iter", "cfg_scale",
    "sampler_name", "override_settings", "alwayson_scripts", "styles", "init_images", "denoising_strength", "send_images", "sd_model_checkpoint", "image", "nonsense",
]
RAW = [
    b"", b"\0", b"{", b"}", b"[", b'"', b"nul", b"{\"prompt\":", b"{\"prompt\":NaN}", b"{\"prompt\":\"a\",\"cfg\":Infinity}", b"{\"prompt\":\"\xff\xfe\"}", b"{\"prompt\":\"\\ud800\"}",
    b"{\"prompt\":\"a\",\"steps\":1e999}", b"{\"prompt\":\"a\",\"prompt\":\"b\"}", b"[" * 100_000, b"{\"a\":" * 50_000, b"\x1f\x8b\x08\0\0\0\0\0", b"\xef\xbb\xbf{}",
    b"--b--\r\n", b"--b\r\n", b"--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"../../x\"\r\n\r\n\x89PNG\r\n--b--\r\n",
    b"--b\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\n\xff\r\n--b--\r\n", b"--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1e9\r\n--b\r\n",
    b"\x89PNG\r\n\x1a\n" + b"\0" * 50, b"\xff\xd8\xff\xe0" + b"\0" * 50, b"RIFF\xff\xff\xff\xffWEBP",
]
KINDS = ["application/json", "multipart/form-data; boundary=b", "multipart/form-data", "text/plain", "application/octet-stream", "\xff", ""]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "BREW", "OPTIONS", "get"]
TRICKS = ["%2e%2e%2f", "..", "%00", "%ff", "%", "//", "a" * 5000, "?", "?limit=-1", "?limit=1e9", "?state=queued,nothing", "?before=%ff", "?" + "a=b&" * 2000, "/%c0%ae", "/\xe9"]
HEADERS = [
    "Host: evil.example", "Host:", "Host: localhost\r\nHost: evil.example", "Origin: null", "Origin: http://evil.example", "Origin: \xff", "Authorization: Basic ====",
    "Authorization: Bearer " + "x" * 9000, "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 5\r\nContent-Length: 6", "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip", "Expect: 100-continue", "Upgrade: websocket\r\nConnection: Upgrade", "X: " + "y" * 20_000, "X-Forwarded-Proto: \"><", "Range: bytes=0-,0-,0-", " folded: 1",
    "no colon", "Connection: close, x",
]


def addresses():
    """All addresses and their methods, as the specification has them; those that take a body are more often asked."""
    paths = json.loads(SPECIFICATION.read_text())["paths"]
    all = [(method, path, "requestBody" in operation) for path, methods in paths.items() for method, operation in methods.items()]
    return [(method.upper(), path) for method, path, takes_body in all for _ in range(10 if takes_body else 1)]


class Fuzzer:
    def __init__(self, server, seed):
        self.server = server
        self.random = random.Random(seed)
        # Streams of events never end by themselves; an image that is accepted would only take time.
        self.addresses = [entry for entry in addresses() if not entry[1].endswith("/events")]
        self.statuses = {}

    def body(self):
        choice = self.random.random()
        if choice < 0.3:
            return self.random.choice(RAW)
        fields = {self.random.choice(FIELDS): self.random.choice(VALUES) for _ in range(self.random.randrange(1, 6))}
        # What is not wrong by itself has a field that is.
        fields.setdefault("prompt", self.random.choice(["a", "a", ""]))
        fields["size"] = fields.get("size") or "7x7x7"
        fields["width"] = -1
        body = json.dumps(fields).encode()
        if choice < 0.5:
            body = body[: self.random.randrange(len(body))]
        elif choice < 0.6:
            at = self.random.randrange(len(body))
            body = body[:at] + bytes([self.random.randrange(256)]) + body[at + 1 :]
        return body

    def request(self):
        method, path = self.random.choice(self.addresses)
        path = re.sub(r"\{[^}]*\}", lambda _: self.random.choice(["0", "x", "f" * 32, "%2e%2e", "-1", "99999999999999999999"]), path)
        choice = self.random.random()
        if choice < 0.1:
            method = self.random.choice(METHODS)
        elif choice < 0.25:
            path += self.random.choice(TRICKS)
        body = b"" if method == "GET" else self.body()
        headers = [f"Host: 127.0.0.1:{self.server.port}", "Connection: close", f"Content-Type: {self.random.choice(KINDS)}"]
        if self.random.random() < 0.15:
            headers.append(self.random.choice(HEADERS))
        if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
            headers.append(f"Content-Length: {len(body)}")
        head = f"{method} {path} HTTP/1.1\r\n" + "\r\n".join(headers) + "\r\n\r\n"
        return head.encode("latin-1", "replace") + body

    def send(self, data):
        """The status; 0 where the connection is closed without one, -1 where the server waits for more of the body."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as connection:
            if b"Length: 9999" in data or b"chunked" in data or b"Length: 5" in data:
                connection.settimeout(0.5)
            try:
                connection.sendall(data)
                while chunk := connection.recv(1 << 16):
                    answer += chunk
            except ConnectionError:
                pass
            except TimeoutError:
                assert connection.gettimeout() < 1, ("no answer", data[:2000])
                return -1
        found = re.findall(rb"^HTTP/1\.1 (\d+)", answer, re.MULTILINE)
        return int(found[-1]) if found else 0

    def run(self, count):
        for _ in range(count):
            data = self.request()
            status = self.send(data)
            assert status < 500, (status, data[:2000])
            self.statuses[status] = self.statuses.get(status, 0) + 1


def is_slow(server):
    """Many bodies that never come to their end do not keep others waiting."""
    held = []
    for _ in range(100):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        held.append(connection)
    start = time.time()
    server.get("/health")
    server.get("/api/jobs")
    assert time.time() - start < 2
    held[0].settimeout(60)
    answer = held[0].recv(1000)
    assert b" 408 " in answer, answer
    # Nor do headers.
    silent = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    silent.sendall(b"GET /health HTTP/1.1\r\nHost: ")
    assert b" 200 " not in silent.recv(1000)
    silent.close()
    for connection in held:
        connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with Server() as server:
        fuzzer = Fuzzer(server, arguments.seed)
        fuzzer.run(arguments.requests // 4)
        before = server.memory("RssAnon")
        fuzzer.run(arguments.requests - arguments.requests // 4)
        grown = server.memory("RssAnon") - before
        assert grown < 16 << 20, f"{grown} more bytes"
        is_slow(server)
        assert server.wait(server.submit(prompt="a", size="64x64", steps=2))["state"] == "done"
        server.stop()
        log = server.log.read_text()
        assert "bug" not in log, log
    print(f"{arguments.requests} malformed requests: {dict(sorted(fuzzer.statuses.items()))}, {grown / 1e6:+.1f} MB")


main()
