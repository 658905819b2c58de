#!/usr/bin/env python3
"""How soon a second request for the same model begins: its first step, against the pace of the first request's steps.

    pace.py [--model FOLDER] [--size 512x512] [--steps 4]

By default the built-in model. `cargo run --release -p sd-models --example synthesize -- --arch sd1.5 FOLDER` makes a larger one.
"""

import argparse
import json
import http.client
import statistics
import threading
import time

from server import Server


class Follower(threading.Thread):
    """Follows all events, and notes when each comes."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port)
        self.connection.request("GET", "/api/events")
        self.answer = self.connection.getresponse()
        self.events = []

    def run(self):
        kind = None
        while line := self.answer.readline():
            now, line = time.perf_counter(), line.decode().strip()
            if line.startswith("event:"):
                kind = line[6:].strip()
            elif line.startswith("data:"):
                self.events.append((now, kind, json.loads(line[5:])))


def times(follower, job):
    """When a job began to run, when each of its stages began, and when its steps were done."""
    began, stages, steps = None, {}, {}
    for now, kind, data in follower.events:
        if kind == "job" and data["id"] == job and data["state"] == "running" and began is None:
            began = now
        if kind == "progress" and (data.get("job") or data.get("id")) == job:
            stages.setdefault(data["stage"], now)
            steps.setdefault(data["step"], now)
    return began, stages, [steps[step] for step in sorted(steps) if step > 0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--memory")
    parser.add_argument("--sampler", help="one whose steps are one evaluation of the network each, such as euler")
    options = parser.parse_args()
    arguments = ["--allow-model", options.model] if options.model else []
    arguments += ["--memory", options.memory] if options.memory else []
    request = {"size": options.size, "steps": options.steps, "model": options.model or "demo", "sampler": options.sampler}
    request = {name: value for name, value in request.items() if value}
    with Server(*arguments) as server:
        follower = Follower(server)
        follower.start()
        cases = [("first", "a red circle", 1), ("same prompt", "a red circle", 2), ("other prompt", "a blue square", 3), ("a third prompt", "a green star", 4)]
        for name, prompt, seed in cases:
            job = server.submit(prompt=prompt, seed=seed, **request)
            found = server.wait(job, 3600)
            assert found["state"] == "done", found
            time.sleep(0.2)
            began, stages, steps = times(follower, job)
            paces = [later - earlier for earlier, later in zip(steps, steps[1:])]
            pace = statistics.median(paces)
            first = steps[0] - began
            shown = ", ".join(f"{stage} at {(at - began) * 1000:.0f}" for stage, at in stages.items())
            print(f"{name}: first step done after {first * 1000:.0f} ms, {(first - pace) * 1000:.0f} ms beyond the pace of {pace * 1000:.0f} ms "
                  f"a step; stages began at ms: {shown}")


main()
