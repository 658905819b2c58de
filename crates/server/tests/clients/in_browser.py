#!/usr/bin/env python3
"""The page in a browser (`page.py`), against a server without a key and one with a key."""

import pathlib
import subprocess
import sys

from server import KEY, Server

PAGE = pathlib.Path(__file__).with_name("page.py")


def main():
    for key in (None, KEY):
        with Server(key=key) as server:
            words = ["--token", key] if key else []
            subprocess.run([sys.executable, PAGE, server.url, *words, *sys.argv[1:]], check=True)


main()
