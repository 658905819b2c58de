#!/usr/bin/env bash
# Prints the command of a C++ compiler that takes the kernels: METAL_STANDIN_CXX, or a clang++ from version 18 on. Where there is
# none it installs one: Debian's clang-19 for root, else pip's ziglang in a virtual environment. Fails where neither can be had.
#
#   tools/metal-standin/compiler.sh FOLDER     the virtual environment's folder
set -euo pipefail

if [[ -n ${METAL_STANDIN_CXX:-} ]]; then
  echo "$METAL_STANDIN_CXX"
  exit
fi
for name in clang++ clang++-{24..18}; do
  if version=$("$name" -dumpversion 2>/dev/null) && ((${version%%.*} >= 18)); then
    echo "$name"
    exit
  fi
done
if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  apt-get update -qq >&2 || true
  if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends clang-19 >&2; then
    echo clang++-19
    exit
  fi
fi
python=$1/bin/python
if ! "$python" -m ziglang version >/dev/null 2>&1; then
  python3 -m venv "$1" >&2
  "$1/bin/pip" install --quiet --disable-pip-version-check ziglang==0.17.1 >&2
fi
echo "$python -m ziglang c++"
