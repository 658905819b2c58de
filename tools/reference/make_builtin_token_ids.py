"""The ids of prompts by transformers from the vocabularies that the program has built in: `builtin_tokenizers.json`.

    python make_builtin_token_ids.py bpe_simple_vocab_16e6.txt.gz tokenizer.json

The arguments are those of `make_builtin_tokenizers.py`: the sources, not what that script makes of them.
"""

import json
import sys
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5TokenizerFast

import byte_pairs
from make_builtin_tokenizers import MERGES, read
from paths import PIPELINE
from prompts import PROMPTS
from tokenizer_folders import write_clip_settings

CLIP_LIMIT = 77
T5_LIMIT = 512


def clip(merges: list[str], padding: str) -> CLIPTokenizer:
    """CLIP's tokenizer from a folder as those of Stable Diffusion's repositories."""
    letters = list(byte_pairs.letters_of_bytes().values())
    tokens = [*letters, *(letter + byte_pairs.END_OF_WORD for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges] + [byte_pairs.START, byte_pairs.END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens) == 49_408
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        write_clip_settings(folder, vocabulary, CLIP_LIMIT, padding)
        return CLIPTokenizer.from_pretrained(folder)


def t5(text: str) -> T5TokenizerFast:
    """T5's tokenizer from a folder as those of Stable Diffusion 3's repositories."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")
        settings = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": T5_LIMIT}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"tokenizer_class": "T5Tokenizer"}))
        tokenizer = T5TokenizerFast.from_pretrained(folder)
        # As transformers 4 reads it.
        older = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **settings)
    differing = [prompt for prompt in PROMPTS if tokenizer(prompt).input_ids != older(prompt).input_ids]
    assert all("\u0085" in prompt for prompt in differing), differing
    return tokenizer


def encoded(tokenizer: PreTrainedTokenizerFast, limit: int) -> list[list[int]]:
    """All ids of each prompt, special tokens included. Padding and truncation are checked here."""
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt).input_ids
        row = tokenizer(prompt, padding="max_length", max_length=limit, truncation=True).input_ids
        kept = ids if len(ids) <= limit else [*ids[:limit - 1], ids[-1]]
        assert row == kept + [tokenizer.pad_token_id] * (limit - len(kept)), prompt
        rows.append(ids)
    return rows


def main() -> None:
    merges_file, tokenizer_file = sys.argv[1:]
    merges = read(merges_file).split("\n")[1:1 + MERGES]
    tokenizers = {
        "clip": (clip(merges, byte_pairs.END), CLIP_LIMIT),
        "clip_exclamation": (clip(merges, "!"), CLIP_LIMIT),
        "t5": (t5(read(tokenizer_file)), T5_LIMIT),
    }
    results = {
        name: {"limit": limit, "padding": tokenizer.pad_token_id, "ids": encoded(tokenizer, limit)}
        for name, (tokenizer, limit) in tokenizers.items()
    }
    used = {name: len({i for ids in result["ids"] for i in ids}) for name, result in results.items()}
    assert len(PROMPTS) >= 300 and min(used.values()) > 500, used
    assert results["clip"]["ids"] != results["clip_exclamation"]["ids"]
    path = PIPELINE / "builtin_tokenizers.json"
    # One prompt a line.
    lines = [json.dumps({"text": prompt} | {name: result["ids"][i] for name, result in results.items()}, separators=(",", ":"))
             for i, prompt in enumerate(PROMPTS)]
    heads = {name: {key: result[key] for key in ("limit", "padding")} for name, result in results.items()}
    path.write_text(f'{{"tokenizers": {json.dumps(heads)},\n"prompts": [\n' + ",\n".join(lines) + "\n]}\n")
    print(f"{len(PROMPTS)} prompts, different ids: {used}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
