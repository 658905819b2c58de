"""A tiny byte-level vocabulary in the layout of CLIP's: all bytes, all bytes that end a word, merges, start, end."""

import json
from collections import Counter
from pathlib import Path

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def letters_of_bytes() -> dict[int, str]:
    """The printable letter that stands for each byte, in the order of CLIP's vocabulary (`!` is first)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def learn_merges(sentences: list[str], count: int) -> list[tuple[str, str]]:
    """The `count` merges that byte-pair encoding finds; among equally frequent pairs the first in order."""
    letters = letters_of_bytes()
    words = Counter(word for sentence in sentences for word in sentence.replace(",", " ,").split())
    splits = {}
    for word, times in words.items():
        split = [letters[byte] for byte in word.encode()]
        split[-1] += END_OF_WORD
        splits[word] = (split, times)
    merges = []
    for _ in range(count):
        pairs = Counter()
        for split, times in splits.values():
            for pair in zip(split, split[1:]):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, (split, times) in splits.items():
            splits[word] = (_merged(split, best), times)
    return merges


def write(folder: Path, sentences: list[str], merge_count: int) -> dict[str, int]:
    """Writes vocab.json and merges.txt, and gives the vocabulary."""
    letters = list(letters_of_bytes().values())
    merges = learn_merges(sentences, merge_count)
    tokens = [*letters, *(letter + END_OF_WORD for letter in letters), *(a + b for a, b in merges), START, END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    assert len(vocabulary) == len(tokens)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return vocabulary


def _merged(split: list[str], pair: tuple[str, str]) -> list[str]:
    result, index = [], 0
    while index < len(split):
        if tuple(split[index:index + 2]) == pair:
            result.append(pair[0] + pair[1])
            index += 2
        else:
            result.append(split[index])
            index += 1
    return result
