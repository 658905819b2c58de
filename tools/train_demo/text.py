"""Makes the three tokenizers from the captions' own words, and turns captions into ids."""

import collections
import json
import math
import random
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel

from language import HARMLESS, caption, random_landscape, random_shapes
from networks import TEXT_LENGTH

START, END = "<|startoftext|>", "<|endoftext|>"
FOLDERS = ("tokenizer", "tokenizer_2", "tokenizer_3")


def word_frequencies(captions: int = 60000) -> dict[str, int]:
    """How often each word of the language occurs in random captions; words that only fill are left out."""
    rng = random.Random(0)
    words = collections.Counter()
    for _ in range(captions):
        scene = random_shapes(rng, held_out=False) if rng.random() < 0.5 else random_landscape(rng)
        words.update(caption(rng, scene).lower().replace(",", " ").replace(".", " ").split())
    return {word: count for word, count in sorted(words.items()) if count > 25 and word not in HARMLESS and word.isalpha()}


def byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes, those that print as themselves first, so that `!` has id 0."""
    alphabet = sorted(ByteLevel.alphabet())
    plain = [sign for sign in alphabet if ord(sign) < 256]
    return plain + [sign for sign in alphabet if ord(sign) >= 256]


def learn_merges(words: dict[str, int]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first, until every word is one token."""
    splits = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while True:
        pairs = collections.Counter()
        for word, parts in splits.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        if not pairs:
            return merges
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        for word, parts in splits.items():
            position = 0
            while position < len(parts) - 1:
                if (parts[position], parts[position + 1]) == best:
                    parts[position:position + 2] = ["".join(best)]
                position += 1


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_clip_tokenizer(folder: Path, merges: list[tuple[str, str]], padding: str) -> None:
    """The four files of a CLIP tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = byte_alphabet()
    tokens = dict.fromkeys(alphabet + [sign + "</w>" for sign in alphabet] + ["".join(pair) for pair in merges] + [START, END])
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}, ensure_ascii=False), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), "utf-8")

    def special(content):
        return {"content": content, "lstrip": False, "normalized": content != padding or content == END, "rstrip": False,
                "single_word": False}

    write_json(folder / "special_tokens_map.json",
               {"bos_token": special(START), "eos_token": special(END), "pad_token": padding, "unk_token": special(END)})
    added = {len(tokens) - 2: START, len(tokens) - 1: END}
    if padding != END:
        added = {list(tokens).index(padding): padding} | added
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(id): special(token) | {"special": True} for id, token in added.items()},
        "bos_token": START, "clean_up_tokenization_spaces": True, "do_lower_case": True, "eos_token": END, "errors": "replace",
        "model_max_length": TEXT_LENGTH, "pad_token": padding, "tokenizer_class": "CLIPTokenizer", "unk_token": END,
    })


def write_t5_tokenizer(folder: Path, words: dict[str, int]) -> None:
    """A unigram tokenizer of whole words and of single signs for everything else."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(words.values())
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -8.0)]
    pieces += [("▁" + word, math.log(count / total)) for word, count in sorted(words.items(), key=lambda item: -item[1])]
    pieces += [(chr(code), -9.0) for code in range(33, 127)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "tokenizer_config.json", special | {
        "added_tokens_decoder": {
            str(id): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
            for id, token in enumerate(("<pad>", "</s>", "<unk>"))},
        "clean_up_tokenization_spaces": True, "extra_ids": 0, "model_max_length": TEXT_LENGTH, "tokenizer_class": "T5Tokenizer",
    })


def write_tokenizers(folder: Path) -> None:
    """Writes `tokenizer`, `tokenizer_2` and `tokenizer_3` under `folder`."""
    words = word_frequencies()
    merges = learn_merges(words)
    write_clip_tokenizer(folder / "tokenizer", merges, END)
    write_clip_tokenizer(folder / "tokenizer_2", merges, "!")
    write_t5_tokenizer(folder / "tokenizer_3", words)


class Tokenizers:
    """The three tokenizers of a model's folder, as the pipeline loads them."""

    def __init__(self, folder: Path):
        from transformers import CLIPTokenizer, T5TokenizerFast

        self.all = [CLIPTokenizer.from_pretrained(folder / "tokenizer"), CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
                    T5TokenizerFast.from_pretrained(folder / "tokenizer_3")]

    def __call__(self, captions: list[str]) -> np.ndarray:
        """Ids `[captions, 3, 32]`."""
        rows = [tokenizer(captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True)["input_ids"]
                for tokenizer in self.all]
        return np.stack([np.asarray(row, dtype=np.int16) for row in rows], axis=1)

    def vocabularies(self) -> tuple[int, int]:
        """The sizes of CLIP's and T5's vocabularies."""
        return len(self.all[0]), len(self.all[2])
