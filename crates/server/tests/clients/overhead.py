#!/usr/bin/env python3
"""What the server adds to the time of its jobs: of a queue of them, and of one at a time.

    overhead.py [--jobs 50]
"""

import argparse
import statistics
import time

from server import Server

SMALL = {"size": "64x64", "steps": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=50)
    count = parser.parse_args().jobs
    with Server() as server:
        server.wait(server.submit(prompt="the model is loaded", **SMALL))
        submitting, jobs = [], []
        for seed in range(count):
            start = time.perf_counter()
            jobs.append(server.submit(prompt=f"a {seed}", seed=seed, **SMALL))
            submitting.append(time.perf_counter() - start)
        while server.get("/api/jobs?state=queued,running&limit=1")["jobs"]:
            time.sleep(0.05)
        found = [server.get(f"/api/jobs/{job}") for job in jobs]
        # From the end of one job to the begin of the next, by the server's own clock.
        times = sorted((job["started"], job["finished"]) for job in found)
        between = [seconds(after[0]) - seconds(before[1]) for before, after in zip(times, times[1:])]
        planning = []
        for seed in range(count):
            start = time.perf_counter()
            server.request("POST", "/api/plan", {"prompt": f"a {seed}", "seed": seed, **SMALL})
            planning.append(time.perf_counter() - start)
        alone = []
        for seed in range(count):
            start = time.perf_counter()
            status, _ = server.request("POST", "/v1/images/generations", {"prompt": f"a {seed}", "seed": seed, **SMALL})
            alone.append(time.perf_counter() - start)
            assert status == 200
        recent = server.get(f"/api/jobs?limit={count}")["jobs"]
        added = [whole - job["seconds"] for whole, job in zip(alone, reversed(recent))]
    shown = lambda values: f"{statistics.median(values) * 1000:.1f} ms"
    print(f"submitting, with the plan: {shown(submitting)}; the plan alone: {shown(planning)}")
    print(f"between two jobs of a queue: {shown(between)}")
    print(f"one at a time, beside the job's own time of {shown([job['seconds'] for job in recent])}: {shown(added)}")


def seconds(text):
    """The seconds of a time such as 2026-05-04T03:02:01.5Z within its day."""
    hours, minutes, rest = text.rstrip("Z").split("T")[1].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


main()
