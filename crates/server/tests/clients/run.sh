#!/bin/sh
# Other programs' libraries, browsers, kills, full disks and malformed requests against the server.
#
#     crates/server/tests/clients/run.sh [SCRIPT…]
#
# Builds the program unless GENERATE names it. What is not on this machine is said and left out.
set -eu
clients=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$clients/../../../.." && pwd)
if [ -z "${GENERATE:-}" ]; then
    (cd "$root" && cargo build --locked)
    GENERATE=$root/target/debug/generate
fi
export GENERATE
if ! command -v python3 >/dev/null; then
    echo "not checked: Python is not installed"
    exit 0
fi
environment=$root/target/clients/venv
if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet openai webuiapi playwright || echo "the libraries cannot be installed: their scripts are left out"
fi
export PYTHONDONTWRITEBYTECODE=1
for script in ${*:-openai_client webui_client open_webui malformed full_disk load memory overhead in_browser}; do
    "$environment/bin/python" "$clients/$script.py"
done
