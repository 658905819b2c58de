#!/usr/bin/env python3
"""Runs jobs on several workers, kills workers and the queue meanwhile, and compares the images with those of one process.

    cluster.py target/debug/generate [--jobs 300] [--workers 3] [--kill-every 4] [--restart-queue] [--results folder|queue|s3://...]

Starts nats-server, a front end and the workers on this machine, in a temporary folder. A worker that was killed is replaced. Every
job must have one image, the store of results one object for it, and the image must have the pixels that `generate` gives for the
same prompt and seed. Without nats-server it says so and exits with 0.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zlib

PROMPTS = ["a red circle", "a blue square", "a green triangle", "a yellow star"]


def port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def pixels(file):
    """The size and the rows of a PNG, without its texts."""
    data = file.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n", file
    at, header, rows = 8, b"", b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        header = body if kind == b"IHDR" else header
        rows += body if kind == b"IDAT" else b""
        at += 12 + length
    return header, zlib.decompress(rows)


class Cluster:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.environment = dict(os.environ, HOME=str(folder), XDG_CACHE_HOME=str(folder / "cache"))
        self.environment.setdefault("RUST_LOG", "info")
        self.queue_port, self.port = port(), port()
        self.processes, self.started, self.kills = {}, 0, 0
        place = {"folder": str(folder / "results"), "queue": None}.get(options.results, options.results)
        self.places = [] if place is None else ["--results", place]
        self.queue_address = ["--queue", f"nats://127.0.0.1:{self.queue_port}"]

    def start(self, name, command):
        log = open(self.folder / f"{name}.log", "ab")
        self.processes[name] = subprocess.Popen(
            [str(word) for word in command], env=self.environment, cwd=self.folder, stdout=log, stderr=log
        )

    def start_queue(self):
        self.start("queue", ["nats-server", "-a", "127.0.0.1", "-p", self.queue_port, "-js", "-sd", self.folder / "jetstream"])

    def start_front_end(self):
        self.start(
            "front_end",
            [self.options.generate, "serve", "--port", self.port, "--folder", self.folder / "server", "--keep-results",
             "--most-waiting", 100000, *self.queue_address, *self.places],
        )

    def start_worker(self):
        self.started += 1
        name = f"worker-{self.started}"
        self.start(
            name,
            [self.options.generate, "worker", *self.queue_address, *self.places, "--folder", self.folder / "workers",
             "--allow-model", "demo", "--threads", 1],
        )
        return name

    def workers(self):
        return [name for name in self.processes if name.startswith("worker")]

    def kill(self, name):
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def end(self):
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def wait_until_up(self):
        end = time.monotonic() + 60
        while True:
            try:
                return self.call("/health")
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)


def request(index, options):
    return {
        "prompt": PROMPTS[index % len(PROMPTS)],
        "seed": 1000 + index,
        "model": "demo",
        "size": f"{options.size}x{options.size}",
        "steps": options.steps,
    }


def ended(cluster):
    """How many jobs have ended, and those that are not done."""
    counts = {}
    for state in ["done", "failed", "cancelled"]:
        counts[state], before = [], ""
        while True:
            jobs = cluster.call(f"/api/jobs?state={state}&limit=500{before}")["jobs"]
            counts[state] += jobs
            if len(jobs) < 500:
                break
            before = f"&before={jobs[-1]['id']}"
    return len(counts["done"]), counts["failed"] + counts["cancelled"]


def run(cluster, options):
    cluster.start_front_end()
    cluster.wait_until_up()
    # Jobs are accepted before the queue is there.
    first = [cluster.call("/api/jobs", request(index, options))["id"] for index in range(options.jobs // 10)]
    cluster.start_queue()
    for _ in range(options.workers):
        cluster.start_worker()
    ids = first + [cluster.call("/api/jobs", request(index, options))["id"] for index in range(len(first), options.jobs)]
    begin, last_kill, restarts, reported = time.monotonic(), time.monotonic(), 0, -1
    while True:
        done, wrong = ended(cluster)
        if wrong:
            raise SystemExit(f"{len(wrong)} jobs failed, such as: {wrong[0]['error']}")
        if done != reported:
            print(f"{time.monotonic() - begin:6.1f} s: {done} done, {cluster.kills} workers killed", flush=True)
            reported = done
        if done == options.jobs:
            break
        if time.monotonic() - begin > options.within:
            raise SystemExit(f"only {done} jobs were done in {options.within} s")
        if time.monotonic() - last_kill >= options.kill_every and cluster.kills < options.most_kills:
            cluster.kill(random.choice(cluster.workers()))
            cluster.start_worker()
            cluster.kills, last_kill = cluster.kills + 1, time.monotonic()
        if options.restart_queue and not restarts and done >= options.jobs // 3:
            cluster.kill("queue")
            time.sleep(2)
            cluster.start_queue()
            restarts += 1
            print("the queue was killed, and is back", flush=True)
        time.sleep(0.2)
    seconds = time.monotonic() - begin
    print(f"{options.jobs} jobs in {seconds:.0f} s, {cluster.kills} workers killed, the queue {restarts} times")
    return ids


def compare(cluster, options, ids):
    assert len(set(ids)) == options.jobs
    if options.results == "folder":
        files = [file for file in (cluster.folder / "results").rglob("*") if file.is_file()]
        images = [file for file in files if file.suffix == ".png"]
        jobs = {file.parent.name for file in images}
        assert len(images) == options.jobs and jobs == set(ids), f"{len(images)} images of {len(jobs)} jobs in the store"
        assert len(files) == 2 * options.jobs, f"{len(files)} files in the store"
        print(f"the store has {len(images)} images, one of each job")
    lines = [
        f'--seed {1000 + index} --size {options.size}x{options.size} --steps {options.steps} "{PROMPTS[index % len(PROMPTS)]}"'
        for index in range(options.jobs)
    ]
    prompts = cluster.folder / "prompts.txt"
    prompts.write_text("\n".join(lines) + "\n")
    own = cluster.folder / "own"
    command = [options.generate, "--prompt-file", prompts, "--output", own / "image_%04d.png", "--quiet"]
    subprocess.run([str(word) for word in command], env=cluster.environment, cwd=cluster.folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    expected = {}
    for metadata in own.glob("*.json"):
        expected[json.loads(metadata.read_text())["seed"]] = pixels(metadata.with_suffix(".png"))
    for index, id in enumerate(ids):
        saved = list((cluster.folder / "server" / "jobs" / id / "images").glob("*.png"))
        assert len(saved) == 1, f"the job {id} has {len(saved)} images"
        assert pixels(saved[0]) == expected[1000 + index], f"the image of the job {id} is another one"
    print(f"all {options.jobs} images have the pixels of one process's")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generate", type=lambda path: pathlib.Path(path).resolve())
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--kill-every", type=float, default=4)
    parser.add_argument("--most-kills", type=int, default=sys.maxsize)
    parser.add_argument("--restart-queue", action="store_true")
    parser.add_argument("--results", default="folder", help="folder, queue, or s3://BUCKET/PREFIX with the environment of its keys")
    parser.add_argument("--within", type=float, default=900)
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    options = parser.parse_args()
    if shutil.which("nats-server") is None:
        print("not checked: nats-server is not installed")
        return
    folder = pathlib.Path(tempfile.mkdtemp(prefix="cluster-"))
    cluster = Cluster(options, folder)
    is_right = False
    try:
        compare(cluster, options, run(cluster, options))
        is_right = True
    finally:
        cluster.end()
        if is_right and not options.keep:
            shutil.rmtree(folder)
        else:
            print(f"logs are in {folder}")


main()
