#!/usr/bin/env bash
# Runs cargo on this workspace with Metal on a system that has none: the crates of this folder take the place of those that speak to
# Apple's frameworks, and the feature `metal` is on.
#
#   tools/metal-standin/cargo.sh COMMAND ARGUMENTS     such as: test -p sd-ops --test device
#
# The workspace is copied as links to target/metal-standin/workspace, because the other crates change its Cargo.lock. Kernels are
# compiled for the CPU by what compiler.sh finds.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
home=$root/target/metal-standin
workspace=$home/workspace
mkdir -p "$workspace" "$home/cache"

"$here/compiler.sh" "$home/venv" > "$home/compiler"

# What is there now, as links; Cargo.toml with the crates that take the others' place.
find "$workspace" -maxdepth 1 -type l -delete
for path in "$root"/* "$root"/.ci; do
  case $(basename "$path") in
    Cargo.toml | Cargo.lock | target | outputs) ;;
    *) ln -sfn "$path" "$workspace/$(basename "$path")" ;;
  esac
done
{
  # This workspace's crates, optimised less, are built sooner. The packages below them are those of its other builds, which are
  # not built again.
  cat "$root/Cargo.toml"
  for crate in memory schedulers weights; do
    printf '\n[profile.dev.package.sd-%s]\nopt-level = 0\n' "$crate"
  done
  printf '\n[patch.crates-io]\n'
  for name in block2 objc2 objc2-foundation objc2-metal; do
    printf '%s = { path = "%s" }\n' "$name" "$home/crates/$name"
  done
} > "$workspace/Cargo.toml.new"
cmp -s "$workspace/Cargo.toml.new" "$workspace/Cargo.toml" || cp "$workspace/Cargo.toml.new" "$workspace/Cargo.toml"
if ! cmp -s "$root/Cargo.lock" "$workspace/Cargo.lock.from"; then
  cp "$root/Cargo.lock" "$workspace/Cargo.lock.from"
  cp "$root/Cargo.lock" "$workspace/Cargo.lock"
fi
# The crates have the versions of those in whose place they are.
for name in block2 objc2 objc2-foundation objc2-metal; do
  version=$(awk -v name="$name" -F'"' '$1 ~ /^name/ {found = $2 == name} found && $1 ~ /^version/ {print $2; exit}' "$root/Cargo.lock")
  mkdir -p "$home/crates/$name"
  for file in $(cd "$here/crates/$name" && find . -type f); do
    mkdir -p "$(dirname "$home/crates/$name/$file")"
    sed "s/^version = \"[0-9.]*99\"/version = \"$version\"/" "$here/crates/$name/$file" > "$home/copied"
    cmp -s "$home/copied" "$home/crates/$name/$file" || cp "$home/copied" "$home/crates/$name/$file"
  done
done
rm -f "$home/copied"

ln -sfn "$here/msl" "$home/msl"
export METAL_STANDIN_HOME=$home
export CARGO_BUILD_BUILD_DIR=${CARGO_TARGET_DIR:-$root/target}
export CARGO_TARGET_DIR=${METAL_STANDIN_TARGET:-$home/target}
command=$1
shift
cd "$workspace"
exec cargo "$command" --features metal "$@"
