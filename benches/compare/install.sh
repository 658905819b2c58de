#!/usr/bin/env bash
# Installs diffusers, in the versions that docs/PERFORMANCE.md names, into FOLDER, and says how to compare with it.
#
#   benches/compare/install.sh FOLDER
set -euo pipefail
folder=${1:?usage: benches/compare/install.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
python3 -m venv "$folder"
"$folder/bin/pip" install --quiet --requirement "$here/requirements.txt"
echo "now: $folder/bin/python $here/compare.py --help"
