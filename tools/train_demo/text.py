"""The demo's three tokenizers, in the files that the real models have, and token ids of captions."""

import json
from collections import Counter
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LENGTH = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """One printable character for each byte, in the order of GPT-2's and CLIP's vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(rest))]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first, until every word is one token."""
    split = {word: [*word[:-1], word[-1] + "</w>"] for word in words}
    merges = []
    while True:
        pairs = Counter(pair for parts in split.values() for pair in zip(parts, parts[1:]))
        if not pairs:
            return merges
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        for word, parts in split.items():
            joined, index = [], 0
            while index < len(parts):
                if tuple(parts[index:index + 2]) == best:
                    joined.append(parts[index] + parts[index + 1])
                    index += 2
                else:
                    joined.append(parts[index])
                    index += 1
            split[word] = joined


def clip_vocabulary(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    alphabet = byte_alphabet()
    merges = learn_merges([word for word in words if word.isascii()])
    tokens = alphabet + [token + "</w>" for token in alphabet] + [a + b for a, b in merges] + [START, END]
    tokens = list(dict.fromkeys(tokens))
    return {token: index for index, token in enumerate(tokens)}, merges


def clip_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """CLIP's tokenizer over a vocabulary, without padding."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]), (START, vocabulary[START]), trim_offsets=False, add_prefix_space=False)
    return tokenizer


def t5_tokenizer(words: list[str]) -> Tokenizer:
    """A unigram tokenizer in which every known word is one piece and everything else falls into letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("\u2581" + word, -4.0) for word in words]
    pieces += [("\u2581", -8.0)] + [(chr(code), -10.0) for code in range(33, 127) if not chr(code).isupper()]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<pad>", "</s>", "<unk>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


class Tokenizers:
    """All three, giving rows of ids of one length."""

    def __init__(self, words: list[str]):
        self.vocabulary, self.merges = clip_vocabulary(words)
        self.clip = clip_tokenizer(self.vocabulary, self.merges)
        self.t5 = t5_tokenizer(words)
        self.clip.enable_truncation(LENGTH)
        self.t5.enable_truncation(LENGTH)

    def ids(self, text: str) -> tuple[list[int], list[int], list[int]]:
        """Ids for CLIP L (padded with the end token), CLIP G (padded with `!`) and T5 (padded with 0)."""
        clip, t5 = self.clip.encode(text).ids, self.t5.encode(text).ids
        missing = LENGTH - len(clip)
        return (clip + [self.vocabulary[END]] * missing, clip + [self.vocabulary["!"]] * missing,
                t5 + [0] * (LENGTH - len(t5)))

    def save(self, root: Path) -> None:
        """Writes `tokenizer`, `tokenizer_2` and `tokenizer_3` as the real repositories hold them."""
        for folder, pad in (("tokenizer", END), ("tokenizer_2", "!")):
            place = root / folder
            place.mkdir(parents=True, exist_ok=True)
            (place / "vocab.json").write_text(json.dumps(self.vocabulary, ensure_ascii=False))
            lines = ["#version: 0.2", *(f"{a} {b}" for a, b in self.merges)]
            (place / "merges.txt").write_text("\n".join(lines) + "\n")
            special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
            (place / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
            config = {**special, "add_prefix_space": False, "do_lower_case": True, "errors": "replace",
                      "model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}
            (place / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
        place = root / "tokenizer_3"
        place.mkdir(parents=True, exist_ok=True)
        self.t5.no_truncation()
        self.t5.save(str(place / "tokenizer.json"), pretty=False)
        self.t5.enable_truncation(LENGTH)
        special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
        (place / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
        config = {**special, "extra_ids": 0, "model_max_length": LENGTH, "tokenizer_class": "T5TokenizerFast"}
        (place / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
