#!/usr/bin/env bash
# What of Apple GPUs can be checked without one: every operation against the CPU's, streaming, images of the built-in model, and the
# memory of full-size models.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec tools/metal-standin/cargo.sh test -p sd-ops -p sd-weights -p sd-generate --test device "$@"
