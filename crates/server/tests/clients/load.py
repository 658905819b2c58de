#!/usr/bin/env python3
"""Many clients, and a server that is killed: every accepted job ends once, with the image that the command makes.

    load.py [--jobs 500] [--clients 50] [--kills 20]
"""

import argparse
import http.client
import random
import threading
import time

from server import Server, pixels

SMALL = {"size": "64x64", "steps": 2}


class Client(threading.Thread):
    """Submits its jobs, one after another, and waits for each; tries again while the server is away."""

    def __init__(self, server, name, seeds):
        super().__init__(name=f"client-{name}", daemon=True)
        self.server = server
        self.seeds = seeds
        self.jobs = {}
        self.failure = None

    def run(self):
        try:
            for seed in self.seeds:
                status, job = self.ask("POST", "/api/jobs", {"prompt": f"a red circle {seed}", "seed": seed, **SMALL})
                assert status == 202, (status, job)
                self.jobs[job["id"]] = seed
        except Exception as failure:  # It is reported by the main thread.
            self.failure = failure

    def ask(self, method, path, body=None):
        end = time.time() + 300
        while True:
            try:
                return self.server.request(method, path, body)
            except (OSError, http.client.HTTPException):
                # What was not answered may have been accepted: it is asked for again, and ends as another job.
                assert time.time() < end, "the server is away for too long"
                time.sleep(0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--checked", type=int, default=40, metavar="N", help="how many images are compared with those of the command")
    arguments = parser.parse_args()
    random.seed(1)
    with Server() as server:
        seeds = list(range(arguments.jobs))
        clients = [Client(server, index, seeds[index :: arguments.clients]) for index in range(arguments.clients)]
        start = time.time()
        for client in clients:
            client.start()
        kills = 0
        while True:
            time.sleep(random.uniform(0.3, 1.5))
            if kills < arguments.kills:
                server.kill()
                server.start()
                kills += 1
            submitted = sum(len(client.jobs) for client in clients)
            left = server.get("/api/jobs?state=queued,running&limit=500")["jobs"]
            if kills == arguments.kills and not any(client.is_alive() for client in clients) and not left:
                break
        failures = [client.failure for client in clients if client.failure]
        assert not failures, failures[:3]
        jobs = {job: seed for client in clients for job, seed in client.jobs.items()}
        assert len(jobs) == arguments.jobs == submitted, (len(jobs), submitted)
        for job in jobs:
            found = server.get(f"/api/jobs/{job}")
            assert found["state"] == "done" and len(found["images"]) == 1, found
            assert found["images"][0]["seed"] == jobs[job], found
        seconds = time.time() - start
        for job in random.sample(sorted(jobs), min(arguments.checked, len(jobs))):
            status, image = server.request("GET", f"/api/jobs/{job}/images/0")
            assert status == 200
            expected = server.generated(f"a red circle {jobs[job]}", seed=jobs[job], **SMALL)
            assert pixels(image) == pixels(expected), f"another image for the seed {jobs[job]}"
        server.stop()
    print(f"{arguments.jobs} jobs of {arguments.clients} clients, {kills} kills: each done once, in {seconds:.0f} s")


main()
