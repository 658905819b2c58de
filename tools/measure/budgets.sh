#!/usr/bin/env bash
# Prints the plans of models at several budgets: the table of docs/memory.md. No weight is read.
#
#   tools/measure/budgets.sh MODEL_FOLDER...
set -euo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
program=$here/target/release/generate

number() { grep -o "\"$1\": *[0-9.]*" | head -n 1 | grep -o '[0-9.]*$'; }
gigabytes() { awk "BEGIN { printf \"%.1f\", $1 / 1073741824 }"; }

echo "| model | size | smallest budget | all blocks stay from | read a step at 2GB | 4GB | 6GB | 8GB | 12GB |"
echo "|---|---|---|---|---|---|---|---|---|"
for model in "$@"; do
    for size in 512x512 1024x1024 1440x1440; do
        arguments=("a red circle" --device cpu --model "$model" --size "$size" --steps 28 --cfg 4.5 --json)
        plan=$("$program" plan "${arguments[@]}" --memory 100GB)
        printf '| %s | %s | %s GB | %s GB |' "$(basename "$model")" "$size" \
            "$(gigabytes "$(number smallest_budget <<<"$plan")")" "$(gigabytes "$(number resident_budget <<<"$plan")")"
        for budget in 2GB 4GB 6GB 8GB 12GB; do
            if plan=$("$program" plan "${arguments[@]}" --memory "$budget" 2>/dev/null); then
                printf ' %s GB |' "$(gigabytes "$(sed 's/.*"name":"denoise"//' <<<"$plan" | number read_each_pass)")"
            else
                printf ' too little |'
            fi
        done
        echo
    done
done
