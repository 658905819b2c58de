# The program in a small image:
#
#   docker build -t sd-generate .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" -v "$HOME/.cache/huggingface:/models" sd-generate "a red circle"
#
# /work is where it runs: images are in /work/outputs. /models is the cache of the hub. It computes on the CPU, and keeps to the
# container's limit of memory (`docker run --memory 8g`). `--build-arg FEATURES=cluster` adds `generate worker` (docs/cluster.md).

FROM rust:1.95-slim-trixie AS build
ARG FEATURES=
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --profile dist --locked --bin generate --features "$FEATURES" && install -m 755 target/dist/generate /generate

FROM debian:trixie-slim
COPY --from=build /generate /usr/local/bin/generate
# For any user: where it runs, where models are, and where interrupted runs and encoded prompts are kept.
RUN mkdir -p /work /models /state && chmod 1777 /work /models /state
ENV HF_HOME=/models SD_GENERATE_STATE=/state SD_GENERATE_CACHE=/state
WORKDIR /work
ENTRYPOINT ["generate"]
