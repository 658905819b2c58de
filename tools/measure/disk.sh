#!/usr/bin/env bash
# A disk-bound step: generates with every block streamed from a disk that is throttled to MEGABYTES (10^6 bytes) per
# second, with the page cache dropped repeatedly, and compares a step with the bytes that it reads divided by the rate at
# which `dd` reads the same file under the same limit. Linux, as root, with control groups.
#
#   tools/measure/disk.sh MODEL_FOLDER [MEGABYTES, default 120] [STEPS, default 3]
set -euo pipefail
model=$(readlink -f "${1:?usage: tools/measure/disk.sh MODEL_FOLDER [MEGABYTES] [STEPS]}")
rate=$((${2:-120} * 1000000))
steps=${3:-3}
here=$(cd "$(dirname "$0")/../.." && pwd)
program=$here/target/release/generate
work=$(mktemp -d)

# The disk of the folder.
device=$(findmnt -no MAJ:MIN -T "$model" | tr -d ' ')
if [[ -d /sys/fs/cgroup/blkio ]]; then
    group=/sys/fs/cgroup/blkio/slow-disk
    mkdir -p $group
    echo "$device $rate" >$group/blkio.throttle.read_bps_device
else
    group=/sys/fs/cgroup/slow-disk
    mkdir -p $group
    echo "$device rbps=$rate" >$group/io.max
fi
slowly() { (echo $BASHPID >$group/cgroup.procs && exec "$@"); }

arguments=("a red circle" --device cpu --model "$model" --size 256x256 --cfg 4.5)
export SD_GENERATE_CACHE=$work/cache
# A quick run first, which fills the prompt cache.
"$program" "${arguments[@]}" --steps 1 --quiet --output "$work/quick" >/dev/null

(while sleep 1; do echo 1 >/proc/sys/vm/drop_caches; done) &
dropper=$!
trap 'kill $dropper 2>/dev/null || true; rm -rf "$work"; rmdir $group 2>/dev/null || true' EXIT

file=$(find "$model/transformer" -name '*.safetensors' | head -n 1)
measured=$(slowly dd if="$file" of=/dev/null bs=4M count=150 iflag=direct 2>&1 | awk '/copied/ { print $1 / $(NF-3) }')

smallest=$("$program" plan "${arguments[@]}" --steps "$steps" --json | grep -o '"smallest_budget": *[0-9]*' | grep -o '[0-9]*$')
budget=$((smallest / 1048576 + 1))MB
bytes=$("$program" plan "${arguments[@]}" --steps "$steps" --memory $budget --json | sed 's/.*"name":"denoise"//' |
    grep -o '"read_each_pass": *[0-9]*' | head -n 1 | grep -o '[0-9]*$')
slowly "$program" "${arguments[@]}" --steps "$steps" --memory $budget --json --output "$work" >"$work/log"
awk -v bytes="$bytes" -v rate="$measured" '
    BEGIN { printf "%.2f GB a step, read by dd at %.1f MB/s: %.1f s\n", bytes / 1e9, rate / 1e6, bytes / rate }
    /"event":"step"/ {
        match($0, /"(seconds|duration)":[0-9.]+/)
        seconds = substr($0, RSTART, RLENGTH); sub(/.*:/, "", seconds)
        printf "step: %.1f s, %.2f of that\n", seconds, seconds * rate / bytes
    }' "$work/log"
