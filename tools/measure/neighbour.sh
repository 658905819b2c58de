#!/usr/bin/env bash
# Generates twice with a model: undisturbed, and with another program that takes most of the free memory during the run.
# The images must be equal, and the second run must warn that it released blocks. Linux; about a minute per step.
#
#   tools/measure/neighbour.sh MODEL_FOLDER
set -euo pipefail
model=${1:?usage: tools/measure/neighbour.sh MODEL_FOLDER}
here=$(cd "$(dirname "$0")/../.." && pwd)
program=$here/target/release/generate
work=$(mktemp -d)
neighbour=
trap 'kill $neighbour 2>/dev/null || true; rm -rf "$work"' EXIT
arguments=("a red circle" --device cpu --model "$model" --size 512x512 --steps 4 --cfg 4.5 --json)

"$program" "${arguments[@]}" --output "$work/alone" >"$work/alone.log"
"$program" "${arguments[@]}" --output "$work/beside" >"$work/beside.log" &
run=$!
until grep -q '"event":"step"' "$work/beside.log"; do sleep 0.2; done
available=$(awk '/MemAvailable/ { print $2 }' /proc/meminfo)
# All but 900 MB, held in a file in memory.
head -c "$(((available - 900000) * 1024))" /dev/zero >/dev/shm/neighbour.$$ &
neighbour=$!
trap 'kill $neighbour 2>/dev/null || true; rm -rf "$work" /dev/shm/neighbour.$$' EXIT
wait $run
grep '"event":"warning"' "$work/beside.log" || { echo "no block was released"; exit 1; }
cmp "$work"/alone/*.png "$work"/beside/*.png && echo "the images are equal"
