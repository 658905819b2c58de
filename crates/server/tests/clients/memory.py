#!/usr/bin/env python3
"""The memory of the server: a second request reads nothing again, ten models in turn leave nothing, and idle it is small.

    memory.py [MODEL]

`MODEL` is the folder of a model; by default that of the built-in one.
"""

import pathlib
import shutil
import sys
import tempfile
import time

from server import Server

MODEL = pathlib.Path(__file__).parents[4] / "models/demo"
SMALL = {"size": "64x64", "steps": 2}


def read_bytes(server):
    for line in open(f"/proc/{server.process.pid}/io"):
        if line.startswith("rchar:"):
            return int(line.split()[1])


def draws(server, **request):
    """The seconds of a job, those until its first step, and the bytes that the server has read for it."""
    before = read_bytes(server)
    job = server.submit(**request, **SMALL)
    found = server.wait(job, 600)
    assert found["state"] == "done", found
    return found["seconds"], read_bytes(server) - before


def megabytes(count):
    return f"{count / 1e6:.1f} MB"


def idles(server):
    """What stays loaded is given back after a while."""
    until = time.time() + 20
    while server.get("/api/memory")["loaded"] > 0:
        assert time.time() < until, "what is loaded is kept"
        time.sleep(0.1)
    time.sleep(1)
    return server.memory("RssAnon")


def takes_turns(model, folder):
    names = []
    for index in range(10):
        target = pathlib.Path(folder) / f"copy-{index}"
        shutil.copytree(model, target)
        names.append(str(target))
    allowed = [word for name in names for word in ("--allow-model", name)]
    with Server("--idle-after", "2s", *allowed) as server:
        start = server.memory("RssAnon"), server.memory()
        print(f"before the first job: {megabytes(start[0])}, with pages of files {megabytes(start[1])}")
        during = []
        for name in names:
            first, read = draws(server, prompt="a", seed=1, model=name)
            second, again = draws(server, prompt="b", seed=2, model=name)
            during.append(server.memory("RssAnon"))
            print(f"a model: {first:.3f} s and {megabytes(read)} read, then {second:.3f} s and {megabytes(again)}; {megabytes(during[-1])} in memory")
            assert again < read / 2, "the second request reads the model again"
        assert max(during) < 1.3 * during[0], "models stay in memory after their turn"
        end = idles(server)
        print(f"after ten models and a while: {megabytes(end)}, with pages of files {megabytes(server.memory())}")
        assert end < start[0] + (20 << 20), "what is loaded is not given back"


def main():
    with tempfile.TemporaryDirectory() as folder:
        takes_turns(sys.argv[1] if len(sys.argv) > 1 else MODEL, folder)


main()
