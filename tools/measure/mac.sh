#!/usr/bin/env bash
# Checks on a Mac what was never run on one, in about ten minutes, and writes report.txt: docs/metal.md says what to look for.
#
#   bash tools/measure/mac.sh
set -uo pipefail
cd "$(dirname "$0")/../.."
exec > >(tee report.txt) 2>&1

say() { printf '\n== %s\n' "$*"; }
try() { say "$*"; "$@" || echo "FAILED: $?"; }

say "commit $(git rev-parse HEAD)"
try sw_vers
try sysctl machdep.cpu.brand_string hw.memsize vm.pagesize vm.page_free_count vm.page_purgeable_count \
  vm.page_pageable_external_count kern.memorystatus_level kern.memorystatus_vm_pressure_level iogpu.wired_limit_mb
try vm_stat
try memory_pressure -Q

try cargo build --release
generate=target/release/generate
try $generate doctor
try $generate doctor --json

folder=$(mktemp -d)
run() { try /usr/bin/time -l $generate "a red circle" --output "$folder/$1" "${@:2}"; }
run gpu --device metal
run gpu-100MB --device metal --memory 100MB
run cpu --device cpu
say "images: the first two should be equal"
shasum "$folder"/*/*.png
say "peaks: measured_peak should be near 'peak memory footprint' of the same run above"
grep -h -E '"(device|predicted_peak|measured_peak)"' "$folder"/*/*.json

say "memory during a run"
$generate "a red circle" --device metal --size 1024x1024 --n 4 --output "$folder/large" --quiet &
sleep 10
footprint -p $! | head -40
vmmap --summary $! | grep -i -E 'footprint|IOAccelerator'
memory_pressure -Q
wait $! || echo "FAILED: $?"

# Metal's validation layer ends the process at the first wrong use.
export MTL_DEBUG_LAYER=1
try cargo test --release -p sd-ops --test device -- --nocapture --test-threads 1
export SD_TEST_DEVICE=metal
try cargo test --release -p sd-models --test suite -- --test-threads 1 mmdit:: text::
try cargo test --release -p sd-pipeline --test suite -- --test-threads 1 images::every
unset MTL_DEBUG_LAYER SD_TEST_DEVICE
try cargo test --release -p sd-memory -p sd-weights
say "done; the lines with FAILED:"
grep FAILED: report.txt || echo none
