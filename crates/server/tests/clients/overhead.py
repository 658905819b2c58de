#!/usr/bin/env python3
"""What the server adds to the time of its jobs: of a queue of them, and of one at a time.

    overhead.py [--jobs 100]

`GENERATE` names the program; its profile matters.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time

from server import Server

SMALL = {"size": "64x64", "steps": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100)
    count = parser.parse_args().jobs
    with Server() as server:
        server.wait(server.submit(prompt="the model is loaded", **SMALL))
        alone = []
        for seed in range(count):
            start = time.perf_counter()
            status, _ = server.request("POST", "/v1/images/generations", {"prompt": f"a {seed}", "seed": seed, **SMALL})
            alone.append(time.perf_counter() - start)
            assert status == 200
        recent = server.get(f"/api/jobs?limit={count}")["jobs"]
        added = [whole - job["seconds"] for whole, job in zip(alone, reversed(recent))]

        planning = timed(count, lambda seed: server.request("POST", "/api/plan", {"prompt": f"a {seed}", "seed": seed, **SMALL}))
        submitting = []
        for seed in range(count):
            start = time.perf_counter()
            job = server.submit(prompt=f"c {seed}", seed=seed, **SMALL)
            submitting.append(time.perf_counter() - start)
            server.wait(job)

        # A queue: the jobs wait while one runs, and nobody asks for anything while they run.
        first = server.submit(prompt="one before them", size="64x64", steps=100, n=4)
        jobs = []
        queueing = timed(count, lambda seed: jobs.append(server.submit(prompt=f"b {seed}", seed=seed, **SMALL)))
        while server.get("/api/jobs?state=queued,running&limit=1")["jobs"]:
            time.sleep(0.5)
        found = [server.get(f"/api/jobs/{job}") for job in [first, *jobs]]
        # From the end of one job to the begin of the next, by the server's own clock.
        times = sorted((seconds(job["started"]), seconds(job["finished"])) for job in found)
        between = [after[0] - before[1] for before, after in zip(times, times[1:])]
        wall = times[-1][1] - times[0][1]
        own = sum(finished - started for started, finished in times[1:])
    print(f"a commit on this disk, which a submission waits for: {shown(committing(count))}")
    print(f"a plan: {shown(planning)}")
    print(f"a submission, with its plan: {shown(submitting)}; while a job runs: {shown(queueing)}")
    print(f"between two jobs of a queue: {shown(between)}; {count} jobs took {wall:.3f} s, of which they ran {own:.3f} s: "
          f"{(wall - own) / count * 1000:.2f} ms each")
    print(f"one at a time, beside the job's own time of {statistics.median(job['seconds'] for job in recent) * 1000:.1f} ms: {shown(added)}")


def committing(count):
    """The seconds of commits like those of the server, in the folder of temporary files."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/jobs.sqlite", isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "CREATE TABLE jobs (text)"):
            connection.execute(statement)
        times = timed(count, lambda _: connection.execute("INSERT INTO jobs VALUES (?)", ("x" * 500,)))
        connection.close()
    return times


def timed(count, work):
    times = []
    for seed in range(count):
        start = time.perf_counter()
        work(seed)
        times.append(time.perf_counter() - start)
    return times


def shown(values):
    """The median and the 95th percentile."""
    values = sorted(values)
    return f"{statistics.median(values) * 1000:.1f} ms (95%: {values[int(len(values) * 0.95)] * 1000:.1f} ms)"


def seconds(text):
    """The seconds of a time such as 2026-05-04T03:02:01.5Z within its day."""
    hours, minutes, rest = text.rstrip("Z").split("T")[1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


main()
