"""The vocabularies that the program has built in, compressed: CLIP's merges and T5's `tokenizer.json`.

    python make_builtin_tokenizers.py bpe_simple_vocab_16e6.txt.gz tokenizer.json

The first file is in open_clip's package (PyPI: open_clip_torch 3.3.0, `open_clip/`), the second, plain or as `.gz`, in
InvokeAI's (PyPI: invokeai 6.14.2, `invokeai/backend/t5/tokenizer/`). `LICENCES.md` beside the results says whose they are.
"""

import gzip
import json
import sys
import zlib
from pathlib import Path

from paths import REPOSITORY

FOLDER = REPOSITORY / "crates" / "weights" / "src" / "model_source" / "builtin_tokenizer"
# CLIP has 49,408 tokens: 256 bytes, the same at the end of a word, the merges, and two special tokens.
MERGES = 49_408 - 2 * 256 - 2
# What no id depends on.
UNUSED_BY_IDS = ["version", "truncation", "padding", "decoder"]
# How transformers 5 splits a text for T5 whatever the file says. Transformers 4 as the file says: the ids of a text
# with U+0085 differ.
SPLIT = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    ],
}


def read(path: str) -> str:
    content = Path(path).read_bytes()
    return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode("utf-8")


def main() -> None:
    merges_file, tokenizer_file = sys.argv[1:]
    # The file goes on with merges that CLIP does not use.
    merges = read(merges_file).split("\n")[1:1 + MERGES]
    assert len(set(merges)) == MERGES and all(len(merge.split(" ")) == 2 for merge in merges)
    tokenizer = json.loads(read(tokenizer_file))
    assert tokenizer["model"]["type"] == "Unigram" and len(tokenizer["model"]["vocab"]) == 32_100
    for name in UNUSED_BY_IDS:
        del tokenizer[name]
    tokenizer["normalizer"], *_ = tokenizer["normalizer"]["normalizers"]
    assert tokenizer["normalizer"]["type"] == "Precompiled"
    tokenizer["pre_tokenizer"] = SPLIT
    for name, text in [
        ("clip_merges.txt", "\n".join(merges) + "\n"),
        ("t5_tokenizer.json", json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))),
    ]:
        content = text.encode("utf-8")
        compressed = zlib.compress(content, 9)
        (FOLDER / f"{name}.zlib").write_bytes(compressed)
        print(f"{name}: {len(content)} bytes, {len(compressed)} compressed")


if __name__ == "__main__":
    main()
