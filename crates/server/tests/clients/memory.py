#!/usr/bin/env python3
"""The memory of the server: a second request reads nothing again, ten models in turn leave nothing, and idle it is small.

    memory.py MODEL

`MODEL` is a folder or a file of a model. Without one, the built-in model is all that is asked for.
"""

import os
import pathlib
import sys
import tempfile
import time

from server import Server

SMALL = {"size": "64x64", "steps": 2}


def first_step(server, **request):
    """Seconds from the begin of the job to its first step, and of a step; from the events of the job."""
    job = server.submit(**request)
    found = server.wait(job, 600)
    assert found["state"] == "done", found
    return found["seconds"]


def stays_loaded(server, model):
    times = [first_step(server, prompt=f"a {index}", seed=index, model=model, **SMALL) for index in range(4)]
    loaded = server.get("/api/memory")["loaded"]
    print(f"{model}: {times[0]:.2f} s the first time, then {min(times[1:]):.2f} s; {loaded / 1e6:.0f} MB stay loaded")
    assert loaded > 0


def read_bytes(server):
    for line in open(f"/proc/{server.process.pid}/io"):
        if line.startswith("rchar:"):
            return int(line.split()[1])


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as folder, Server("--idle-after", "2s") as server:
        baseline = server.memory(), server.memory("RssAnon")
        stays_loaded(server, "demo")
        time.sleep(4)
        idle = server.memory(), server.memory("RssAnon")
        assert server.get("/api/memory")["loaded"] == 0
        print(f"before the first job {baseline[0] / 1e6:.1f} MB ({baseline[1] / 1e6:.1f} MB without files), idle {idle[0] / 1e6:.1f} MB ({idle[1] / 1e6:.1f} MB)")
    if model is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        # Hard links: ten models of one content.
        names = []
        for index in range(10):
            target = pathlib.Path(folder) / f"copy-{index}{pathlib.Path(model).suffix}"
            os.link(model, target)
            names.append(str(target))
        allowed = [word for name in names for word in ("--allow-model", name)]
        with Server("--idle-after", "2s", *allowed) as server:
            baseline = server.memory("RssAnon")
            peaks = []
            for name in names:
                before = read_bytes(server)
                first = first_step(server, prompt="a", seed=1, model=name, **SMALL)
                read = read_bytes(server) - before
                before = read_bytes(server)
                second = first_step(server, prompt="b", seed=2, model=name, **SMALL)
                again = read_bytes(server) - before
                peaks.append(server.memory("RssAnon"))
                print(f"{pathlib.Path(name).name}: {first:.2f} s and {read / 1e6:.0f} MB read, then {second:.2f} s and {again / 1e6:.0f} MB; {peaks[-1] / 1e6:.0f} MB in memory")
            assert max(peaks[1:]) < 1.2 * peaks[0], peaks
            time.sleep(4)
            end = server.memory("RssAnon")
            print(f"before {baseline / 1e6:.1f} MB, after ten models {end / 1e6:.1f} MB")


main()
