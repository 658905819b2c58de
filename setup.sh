#!/usr/bin/env bash
# Builds sd-generate and installs the program `generate` for you alone, with its man page and its completions.
#
#   ./setup.sh            checks what the build needs, builds, tries the program, installs it
#   ./setup.sh --check    only checks what the build needs
#   ./setup.sh --cuda     builds and installs `generate-cuda` too, to which `generate` hands over on machines with an NVIDIA GPU
#
# PREFIX names another folder than ~/.local to install into. Rust is installed with rustup if it is missing.

# macOS comes with bash 3.2, so nothing newer is used.
set -euo pipefail
cd "$(dirname "$0")"

prefix=${PREFIX:-$HOME/.local}

stop() {
  echo "error: $1" >&2
  [[ -z ${2:-} ]] || echo "hint: $2" >&2
  exit 1
}

only_check= cuda=
case ${1:-} in
  '') ;;
  --check) only_check=yes ;;
  --cuda) cuda=yes ;;
  -h | --help)
    sed -n '2,8s/^# \{0,1\}//p' setup.sh
    exit 0
    ;;
  *) stop "\`$1\` is no option of setup.sh" "./setup.sh --help" ;;
esac

case $(uname -s) in
  MINGW* | MSYS* | CYGWIN*)
    stop "setup.sh is for Linux and macOS" "on Windows: cargo install --locked --path crates/cli --profile dist"
    ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The compiler first: without it Rust could not link a program either.
c_compiler_hint() {
  case $(uname -s) in
    Darwin) echo "xcode-select --install" ;;
    *)
      if command -v apt-get >/dev/null; then
        echo "sudo apt-get install gcc libc6-dev"
      elif command -v dnf >/dev/null; then
        echo "sudo dnf install gcc"
      elif command -v pacman >/dev/null; then
        echo "sudo pacman -S gcc"
      elif command -v zypper >/dev/null; then
        echo "sudo zypper install gcc"
      elif command -v apk >/dev/null; then
        echo "sudo apk add gcc musl-dev"
      else
        echo "install gcc or clang with the header files of the C library"
      fi
      ;;
  esac
}
# On a Mac without the command line tools `cc` opens a window instead of failing.
if [[ $(uname -s) == Darwin ]] && ! xcode-select -p >/dev/null 2>&1; then
  stop "there is no C compiler, which the build links with" "$(c_compiler_hint)"
fi
printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$scratch/try.c"
if ! cc "$scratch/try.c" -o "$scratch/try" >"$scratch/cc.log" 2>&1; then
  if command -v cc >/dev/null; then
    sed 's/^/cc: /' "$scratch/cc.log" >&2
    stop "the C compiler \`cc\` cannot build a program" "$(c_compiler_hint)"
  fi
  stop "there is no C compiler \`cc\`, which the build links with" "$(c_compiler_hint)"
fi

if ! command -v cargo >/dev/null && [[ -f $HOME/.cargo/env ]]; then
  # shellcheck source=/dev/null
  source "$HOME/.cargo/env"
fi
if ! command -v cargo >/dev/null; then
  [[ -z $only_check ]] || stop "Rust is missing" "./setup.sh installs it with rustup, or see https://rustup.rs"
  command -v curl >/dev/null || stop "Rust is missing, and curl, which would fetch it" "install Rust: https://rustup.rs"
  echo "Rust is missing: installing it with rustup from https://rustup.rs"
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
  # shellcheck source=/dev/null
  source "$HOME/.cargo/env"
fi

needed=$(sed -n 's/^rust-version = "\([0-9]*\.[0-9]*\).*/\1/p' Cargo.toml | head -n 1)
version=$(rustc --version) || stop "\`rustc --version\` fails" "rustup toolchain install stable"
# `rustc 1.95.0 (59807616e 2026-04-14)`, or `rustc 1.97.0-nightly (...)`.
version=$(printf '%s\n' "$version" | sed -n 's/^rustc \([0-9][0-9]*\.[0-9][0-9]*\).*/\1/p')
[[ -n $version ]] || stop "\`rustc --version\` names no version" "rustup toolchain install stable"
if ((${version%%.*} * 10000 + ${version#*.} < ${needed%%.*} * 10000 + ${needed#*.})); then
  if command -v rustup >/dev/null; then
    hint="rustup update stable"
  else
    hint="install a newer one with rustup: https://rustup.rs"
  fi
  stop "Rust $version is too old: the program needs $needed or newer" "$hint"
fi
echo "Rust $version and the C compiler are as the build needs them."
if [[ -n $cuda ]] && ! command -v "${NVCC:-nvcc}" >/dev/null && [[ ! -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]]; then
  stop "there is no \`nvcc\`, which compiles for NVIDIA GPUs" "install the CUDA toolkit 13, or name its folder by CUDA_HOME; see docs/cuda.md"
fi
[[ -z $only_check ]] || exit 0

target=${CARGO_TARGET_DIR:-target}
if [[ ! -e $target/dist/generate ]]; then
  echo "Building: expect 10 to 30 minutes on two cores the first time, less on more. It takes about 2 GB of disk in $target."
fi
cargo build --profile dist --locked --bin generate
if [[ -n $cuda ]]; then
  echo "Building for NVIDIA GPUs: expect as long again, and half an hour on two cores for the kernels."
  # In a folder of its own: it is the same program with a feature more.
  CARGO_TARGET_DIR=$target/cuda cargo build --profile dist --locked --bin generate --features cuda
fi

mkdir -p "$prefix/bin"
# Written beside its place and renamed, so that a running `generate` is not disturbed. What cannot draw does not replace what is there.
new=$prefix/bin/.generate.new
trap 'rm -rf "$scratch" "$new"' EXIT
install -m 755 "$target/dist/generate" "$new"
start=$SECONDS
if ! image=$("$new" "a red circle" --model demo --quiet --output "$scratch/images") || [[ ! -s $image ]]; then
  stop "the program was built and cannot draw, so it was not installed" \
    "\`$target/dist/generate doctor\` says what this machine can do; please report what it prints"
fi
echo "It drew a red circle in $((SECONDS - start)) s."
mv "$new" "$prefix/bin/generate"
installed=("$prefix/bin/generate")
if [[ -n $cuda ]]; then
  install -m 755 "$target/cuda/dist/generate" "$new"
  mv "$new" "$prefix/bin/generate-cuda"
  installed+=("$prefix/bin/generate-cuda")
fi

# Writes what `generate ARGUMENTS` prints to a file, if that begins as it should. The program works without these files.
write() { # FILE PATTERN ARGUMENTS...
  local file=$1 pattern=$2
  shift 2
  (cd "$scratch" && "$prefix/bin/generate" "$@" >"$scratch/written" 2>/dev/null) || return 0
  grep -q -- "$pattern" "$scratch/written" || return 0
  mkdir -p "$(dirname "$file")"
  install -m 644 "$scratch/written" "$file"
  installed+=("$file")
}
write "$prefix/share/man/man1/generate.1" '^\.TH ' man
write "$prefix/share/bash-completion/completions/generate" 'complete ' completions bash
write "$prefix/share/zsh/site-functions/_generate" '^#compdef generate' completions zsh
write "$prefix/share/fish/vendor_completions.d/generate.fish" 'complete -c generate' completions fish

echo "Installed:"
printf '  %s\n' "${installed[@]}"
case ":$PATH:" in
  *":$prefix/bin:"*) ;;
  *) echo "$prefix/bin is not on your PATH: add  export PATH=\"$prefix/bin:\$PATH\"  to your shell's profile." ;;
esac
if [[ ${SHELL:-} == */zsh && -e $prefix/share/zsh/site-functions/_generate ]]; then
  echo "For completions in zsh: add  fpath=($prefix/share/zsh/site-functions \$fpath)  before compinit in ~/.zshrc."
fi
echo 'Try:  generate "a red circle"'
