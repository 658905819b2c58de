#!/usr/bin/env python3
"""A disk that is full, and one that cannot be written: clear errors, nothing lost, and it goes on when there is space.

Needs the rights to mount a file system of memory.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from server import Server, encoded, pixels, png

SMALL = {"size": "64x64", "steps": 2}


def mount(*words):
    return subprocess.run(["mount", *words], capture_output=True).returncode == 0


def until(condition, seconds=30):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end, "not in time"
        time.sleep(0.1)


def fills(folder):
    """Writes until there is no space, and returns the file."""
    path = pathlib.Path(folder) / "filler"
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 4096, 512):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                pass
    return path


def ready(server):
    return server.request("GET", "/ready")


def refuses_while_full(server, folder):
    filler = fills(folder)
    for path, body in (
        ("/api/jobs", {"prompt": "a", **SMALL}),
        ("/v1/images/generations", {"prompt": "a", **SMALL}),
        ("/sdapi/v1/txt2img", {"prompt": "a", "width": 64, "height": 64, "steps": 2}),
        ("/api/uploads", b"\x89PNG" + b"x" * 100_000),
    ):
        status, answer = server.request("POST", path, body)
        assert status == 507, (path, status, answer)
        assert isinstance(answer, dict), answer
    status, answer = ready(server)
    assert status == 503 and answer["reason"], answer
    server.get("/health")
    assert server.get("/api/jobs")["jobs"]
    filler.unlink()
    until(lambda: ready(server)[0] == 200)


def goes_on(server, folder):
    """The disk becomes full while a job runs."""
    long = {"size": "64x64", "steps": 100, "n": 4}
    job = server.submit(prompt="a red circle", seed=5, **long)
    waiting = server.submit(prompt="a blue square", seed=6, **SMALL)
    until(lambda: server.get(f"/api/jobs/{job}")["state"] == "running")
    filler = fills(folder)
    until(lambda: ready(server)[0] == 503)
    time.sleep(4)
    for own in (job, waiting):
        state = server.get(f"/api/jobs/{own}")["state"]
        assert state in ("queued", "running"), state
    filler.unlink()
    found = server.wait(job)
    assert found["state"] == "done" and len(found["images"]) == 4, found
    assert server.wait(waiting)["state"] == "done"
    status, image = server.request("GET", f"/api/jobs/{job}/images/0")
    assert pixels(image) == pixels(server.generated("a red circle", seed=5, size="64x64", steps=100))


def refuses_while_read_only(server, folder):
    """The folders of a server that runs can be written no more."""
    own = [f"{folder}/jobs", f"{folder}/jobs/jobs", f"{folder}/jobs/uploads"]
    if subprocess.run(["chattr", "+i", *own], capture_output=True).returncode != 0:
        print("not checked: folders cannot be made immutable")
        return
    try:
        status, answer = server.request("POST", "/api/jobs", {"prompt": "a", "init_image": encoded(png(64, 64, lambda x, y: (9, 9, 9, 255))), **SMALL})
        assert status == 507, (status, answer)
        assert server.request("POST", "/api/uploads", png(8, 8, lambda x, y: (9, 9, 9, 255)))[0] == 507
        assert ready(server)[0] == 503
        waiting = server.submit(prompt="waits", **SMALL)
        until(lambda: server.get(f"/api/jobs/{waiting}")["state"] == "queued")
    finally:
        subprocess.run(["chattr", "-i", *own], check=True)
    until(lambda: ready(server)[0] == 200)
    assert server.wait(waiting)["state"] == "done"


def starts_on_none(folder):
    """A server that starts where nothing can be written says so."""
    assert mount("-o", "remount,ro", folder)
    command = [os.environ["GENERATE"], "serve", "--port", "0", "--folder", f"{folder}/jobs"]
    started = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert started.returncode == 1 and "error: " in started.stderr and "hint: " in started.stderr, started
    assert mount("-o", "remount,rw", folder)


def main():
    with tempfile.TemporaryDirectory() as folder:
        if os.name != "posix" or not mount("-t", "tmpfs", "-o", "size=12m", "tmpfs", folder):
            print("not checked: no file system can be mounted")
            sys.exit(0)
        try:
            with Server(folder=f"{folder}/jobs") as server:
                first = server.submit(prompt="first", **SMALL)
                assert server.wait(first)["state"] == "done"
                refuses_while_full(server, folder)
                goes_on(server, folder)
                refuses_while_read_only(server, folder)
                assert server.get(f"/api/jobs/{first}")["state"] == "done"
                server.stop()
            starts_on_none(folder)
        finally:
            subprocess.run(["umount", "-l", folder])
    print("a full disk, and one that cannot be written: nothing is lost")


main()
