#!/usr/bin/env bash
# Measures the figures of docs/memory.md with full-size models and random weights: budgets are kept, predictions hold, no
# budget changes a pixel, and the cost of streaming. Prints Markdown tables.
#
#   tools/measure/memory.sh DIR [WHAT...]
#
# The full-size models (32 GB) are written to DIR once, and their images too. WHAT is any of: large large-1024 decode
# medium shared held; by default all. The device is the CPU (--device cpu). Nothing else should be running.
set -euo pipefail

directory=${1:?usage: tools/measure/memory.sh DIR [large] [large-1024] [decode] [medium] [shared] [held]}
shift
parts=${*:-large large-1024 decode medium shared held}
here=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
# A separate prompt cache, so that encoding is measured exactly once.
export SD_GENERATE_CACHE=$directory/cache SD_GENERATE_STATE=$directory/state

cd "$here"
cargo build --release --quiet -p sd-generate
cargo build --release --quiet -p sd-models --example synthesize
cargo build --release --quiet -p sd-models --example decode
program=$here/target/release/generate

# The first number called $1 in the JSON on standard input.
number() { grep -o "\"$1\": *[0-9.]*" | head -n 1 | grep -o '[0-9.]*$'; }
megabytes() { echo $(($1 / 1048576)); }

# A full-size model; both share their text encoders by links.
model() {
    if [[ ! -e $directory/$1/model_index.json ]]; then
        if [[ $1 == sd3.5-medium && -e $directory/sd3.5-large ]]; then
            mkdir -p "$directory/$1"
            for encoder in text_encoder text_encoder_2 text_encoder_3; do
                ln -sfn "$directory/sd3.5-large/$encoder" "$directory/$1/$encoder"
            done
        fi
        target/release/examples/synthesize --arch "$1" "$directory/$1" >&2
    fi
    echo "$directory/$1"
}

# Generates into $directory/$1 with the other arguments, and prints the path of the metadata.
generate() {
    local output=$directory/$1
    shift
    rm -rf "$output"
    "$program" "a red circle" --device cpu --quiet --output "$output" "$@" >/dev/null
    ls "$output"/*.json | head -n 1
}

# One row: name, budget, prediction, peak, their ratio, seconds.
row() {
    local budget predicted measured
    budget=$(number budget <"$2") predicted=$(number predicted_peak <"$2") measured=$(number measured_peak <"$2")
    printf '| %s | %s MB | %s MB | %s MB | %s | %.0f s |\n' "$1" "$(megabytes "$budget")" "$(megabytes "$predicted")" \
        "$(megabytes "$measured")" "$(awk "BEGIN { printf \"%.3f\", $measured / $predicted }")" "$(number generation_time <"$2")"
    ((measured <= budget && measured <= predicted)) || echo "**over**"
}

# Seconds of a step, from the second on, of the JSON events on standard input.
step_seconds() {
    grep '"event":"step"' | number_of_steps
}
number_of_steps() {
    grep -o '"seconds":[0-9.]*' | cut -d: -f2 | tail -n +2 | sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

for part in $parts; do
    case $part in
    large)
        large=$(model sd3.5-large)
        echo "### SD 3.5 Large, 512x512, 2 steps, cfg 4.5"
        echo
        echo "| budget | budget | predicted peak | VmHWM | measured / predicted | whole run |"
        echo "|---|---|---|---|---|---|"
        first=
        for budget in 12GB 6GB 3GB 2GB; do
            sidecar=$(generate "large-$budget" --model "$large" --size 512x512 --steps 2 --cfg 4.5 --memory "$budget")
            row "$budget" "$sidecar"
            image=${sidecar%.json}.png
            if [[ -z $first ]]; then first=$image; else cmp "$first" "$image"; fi
        done
        echo
        echo "The four files are equal."
        ;;
    large-1024)
        large=$(model sd3.5-large)
        echo "### SD 3.5 Large, 1024x1024, 1 step, cfg 4.5, with its decoding"
        echo
        echo "| budget | budget | predicted peak | VmHWM | measured / predicted | whole run |"
        echo "|---|---|---|---|---|---|"
        row 3GB "$(generate large-1024 --model "$large" --size 1024x1024 --steps 1 --cfg 4.5 --memory 3GB)"
        ;;
    decode)
        echo "### The decoder of SD 3.5 at 2048x2048, by bands and in one piece"
        echo
        target/release/examples/decode 2048 whole
        ;;
    medium)
        medium=$(model sd3.5-medium)
        echo "### SD 3.5 Medium, 512x512, cfg 4.5: a step resident, and streamed at half of what that needs"
        echo
        arguments=(--model "$medium" --size 512x512 --steps 4 --cfg 4.5)
        full=$("$program" plan "a red circle" --device cpu --json "${arguments[@]}" | number resident_budget)
        echo "| blocks | budget | seconds a step |"
        echo "|---|---|---|"
        for budget in "$full" $((full / 2)) "$full" $((full / 2)); do
            seconds=$("$program" "a red circle" --device cpu --json --output "$directory/medium" "${arguments[@]}" --memory "$budget" | step_seconds)
            echo "| $([[ $budget == "$full" ]] && echo resident || echo streamed) | $(megabytes "$budget") MB | $seconds |"
        done
        ;;
    shared)
        medium=$(model sd3.5-medium)
        echo "### Bytes read for four images and for one, streamed (SD 3.5 Medium, 256x256, 4 steps)"
        echo
        for images in 1 4; do
            sidecar=$(generate "shared-$images" --model "$medium" --size 256x256 --steps 4 --cfg 4.5 --memory 1.5GB --n "$images")
            echo "- --n $images: $(megabytes "$(number weights_read <"$sidecar")") MB"
        done
        ;;
    held)
        large=$(model sd3.5-large)
        echo "### Bytes of the transformer of SD 3.5 Large that are held while sampling (28 steps, 1024x1024)"
        echo
        plan=$("$program" plan "a red circle" --device cpu --model "$large" --cfg 4.5 --memory 20GB --json)
        held=$(sed 's/.*"name":"denoise"//' <<<"$plan" | number resident)
        conditions=$(number condition_bytes <<<"$plan")
        file=$(wc -c "$large"/transformer/*.safetensors | tail -n 1 | grep -o "[0-9]*" | head -n 1)
        echo "weights $(megabytes "$held") MB, modulations and text $(megabytes "$conditions") MB, files $(megabytes "$file") MB:" \
            "$(awk "BEGIN { printf \"%.1f\", 100 - 100 * ($held + $conditions) / $file }")% less"
        ;;
    *)
        echo "there is nothing called $part to measure" >&2
        exit 2
        ;;
    esac
    echo
done
