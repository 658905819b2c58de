#!/usr/bin/env python3
"""Packs a built program into the archive of a release. Needs Python 3.9, cargo, and nothing else.

    package.py pack --target TARGET --program PATH [--cuda-program PATH] [--output FOLDER]
    package.py notes

`pack` writes sd-generate-VERSION-TARGET.tar.gz, .zip for Windows, with the SHA-256 beside it, and prints the archive's path. The
archive has the program, as `generate-cuda` the one for NVIDIA GPUs if there is one, the man page and completions (where the
program runs on this machine), the documentation and the licences of everything that was linked. The same files give the same
bytes.

`notes` prints the section of CHANGELOG.md of the workspace's version.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "sd-generate"

# What people can start.
PROGRAMS = [f"{name}{suffix}" for name in ("generate", "generate-cuda") for suffix in ("", ".exe")]
# What `generate WORDS` prints, the name of its file, and how the text is recognised.
PRINTED = [
    (["man"], "generate.1", r"^\.TH "),
    (["completions", "bash"], "completions/generate.bash", r"complete "),
    (["completions", "zsh"], "completions/_generate", r"^#compdef generate"),
    (["completions", "fish"], "completions/generate.fish", r"^complete -c generate"),
    (["completions", "powershell"], "completions/generate.ps1", r"Register-ArgumentCompleter"),
]
# What people read, so that the links of the README lead somewhere.
DOCUMENTS = ["*.md", "docs/*.md", "docs/images/*", "models/demo/README.md", "LICENSE-*"]
# The licences of data that is built into the program.
BUILT_IN = "crates/weights/src/model_source/builtin_tokenizer/LICENCES.md"
LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|notice|unlicense)", re.IGNORECASE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pack_options = commands.add_parser("pack")
    pack_options.add_argument("--target", required=True)
    pack_options.add_argument("--program", type=Path, required=True)
    pack_options.add_argument("--cuda-program", type=Path)
    pack_options.add_argument("--output", type=Path, default=ROOT / "target/release-archives")
    commands.add_parser("notes")
    options = parser.parse_args()
    if options.command == "notes":
        print(notes(version()))
    else:
        print(pack(options.target, options.program.resolve(), options.cuda_program, options.output))


def version():
    return next(package for package in metadata()["packages"] if package["name"] == PACKAGE)["version"]


def metadata(*options):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", *options]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def notes(of_version):
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(of_version)}\b.*?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if section is None:
        sys.exit(f"CHANGELOG.md has no section of {of_version}")
    return section.group(1).strip()


def pack(target, program, cuda_program, output):
    name = f"{PACKAGE}-{version()}-{target}"
    suffix = ".exe" if "windows" in target else ""
    files = {f"generate{suffix}": program.read_bytes()}
    if cuda_program is not None:
        files[f"generate-cuda{suffix}"] = cuda_program.read_bytes()
    for document in (path for pattern in DOCUMENTS for path in ROOT.glob(pattern)):
        files[document.relative_to(ROOT).as_posix()] = document.read_bytes()
    files["LICENCES.md"] = licences(target, with_cuda=cuda_program is not None).encode()
    files.update(printed_by(program))
    output.mkdir(parents=True, exist_ok=True)
    write = write_zip if suffix else write_tar
    archive = write(output, name, {f"{name}/{path}": data for path, data in sorted(files.items())})
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    archive.with_name(archive.name + ".sha256").write_text(f"{digest}  {archive.name}\n", encoding="utf-8", newline="\n")
    return archive


def printed_by(program):
    """Man page and completions. The archive is good without them: another machine's program does not run here."""
    files = {}
    for words, path, pattern in PRINTED:
        try:
            with tempfile.TemporaryDirectory() as folder:
                quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
                run = subprocess.run([program, *words], cwd=folder, check=True, **quiet)
        except (OSError, subprocess.CalledProcessError):
            run = None
        if run is None or re.search(pattern, run.stdout.decode(errors="replace"), re.MULTILINE) is None:
            print(f"left out: {path}, which `generate {' '.join(words)}` did not print", file=sys.stderr)
        else:
            files[path] = run.stdout
    return files


def licences(target, with_cuda):
    """The licences of the packages that are linked into the program, each text once."""
    features = ["--features", f"{PACKAGE}/cuda"] if with_cuda else []
    graph = metadata("--filter-platform", target, *features)
    packages = {package["id"]: package for package in graph["packages"]}
    edges = {node["id"]: node["deps"] for node in graph["resolve"]["nodes"]}
    root = next(package["id"] for package in graph["packages"] if package["name"] == PACKAGE)
    linked, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package not in linked:
            linked.add(package)
            is_linked = lambda edge: any(kind["kind"] is None for kind in edge["dep_kinds"])
            waiting += [edge["pkg"] for edge in edges[package] if is_linked(edge)]
    rows, texts = [], {}
    for package in sorted((packages[id] for id in linked), key=lambda package: (package["name"], package["version"])):
        if package["source"] is None:
            continue
        label = f"{package['name']} {package['version']}"
        rows.append(f"| {package['name']} | {package['version']} | {package['license'] or 'see below'} |")
        folder = Path(package["manifest_path"]).parent
        for file in sorted(folder.iterdir()):
            if file.is_file() and LICENCE_FILE.match(file.name):
                text = file.read_text(encoding="utf-8", errors="replace").strip()
                texts.setdefault(text, []).append(label)
    built_in = (ROOT / BUILT_IN).read_text(encoding="utf-8").strip()
    parts = ["# Licences of what the program is built from", ""]
    parts += ["| package | version | licence |", "|---|---|---|", *rows, ""]
    for text, labels in texts.items():
        parts += [f"## {', '.join(labels)}", "", "```text", text, "```", ""]
    # The headings of the file are one level lower here.
    parts += [re.sub(r"^#", "##", built_in, flags=re.MULTILINE), ""]
    return "\n".join(parts)


def timestamp():
    """The time of all files in an archive: that of the commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        command = ["git", "log", "-1", "--format=%ct"]
        given = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False).stdout.strip() or 0
    return max(int(given), 315_532_800)  # Zip files begin in 1980.


def mode(path):
    return 0o755 if path.rsplit("/", 1)[-1] in PROGRAMS else 0o644


def write_tar(output, name, files):
    archive = output / f"{name}.tar.gz"
    with open(archive, "wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path, data in files.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode, entry.mtime = len(data), mode(path), timestamp()
                tar.addfile(entry, io.BytesIO(data))
    return archive


def write_zip(output, name, files):
    archive = output / f"{name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path, time.gmtime(timestamp())[:6])
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, mode(path) << 16
            packed.writestr(entry, data)
    return archive


if __name__ == "__main__":
    main()
