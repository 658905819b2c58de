"""Folders of tiny tokenizers, in the files that the repositories of SD 3.5 have."""

import io
import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers import T5Tokenizer

import byte_pairs
from corpus import SENTENCES

CLIP_MERGES = 120
T5_PIECES = 220
# Which characters become which before T5 sees a text: a small excerpt of the rules of its true model.
T5_NORMALISATION = {
    "\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\ufb01": "fi", "\uff21": "A", "\uff22": "B",
    "\uff23": "C", "\u2460": "1", "e\u0301": "\u00e9", "\u200b": " ", "\ufeff": "", "\u0007": "",
}


def write_clip(folder: Path, limit: int, padding: str) -> dict[str, int]:
    """A tokenizer of CLIP that fills up with `padding`; gives its vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    vocabulary = byte_pairs.write(folder, SENTENCES, CLIP_MERGES)
    write_clip_settings(folder, vocabulary, limit, padding)
    return vocabulary


def write_clip_settings(folder: Path, vocabulary: dict[str, int], limit: int, padding: str) -> None:
    """The settings of CLIP's tokenizer beside its `vocabulary`."""

    def described(token: str, normalized: bool) -> dict:
        return {"content": token, "lstrip": False, "normalized": normalized, "rstrip": False, "single_word": False}

    start, end = described(byte_pairs.START, True), described(byte_pairs.END, True)
    added = {token["content"]: token | {"special": True} for token in (start, end)}
    if padding not in added:
        added[padding] = described(padding, False) | {"special": True}
    by_id = sorted((vocabulary[token], description) for token, description in added.items())
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(index): description for index, description in by_id},
        "bos_token": byte_pairs.START,
        "clean_up_tokenization_spaces": True,
        "do_lower_case": True,
        "eos_token": byte_pairs.END,
        "errors": "replace",
        "model_max_length": limit,
        "pad_token": padding,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": byte_pairs.END,
    }
    special = {"bos_token": start, "eos_token": end, "pad_token": padding, "unk_token": end}
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)


def t5(limit: int) -> T5Tokenizer:
    """A tokenizer of T5, learnt by sentencepiece with rules of its own."""
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "rules.tsv"
        lines = (f"{_hex(before)}\t{_hex(after)}" for before, after in T5_NORMALISATION.items())
        rules.write_text("\n".join(lines) + "\n")
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES), model_writer=model, model_type="unigram", vocab_size=T5_PIECES,
            hard_vocab_limit=False, num_threads=1, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=1.0,
            normalization_rule_tsv=str(rules), minloglevel=2,
        )
        file = Path(folder) / "spiece.model"
        file.write_bytes(model.getvalue())
        extracted = T5Tokenizer.convert_to_native_format(vocab_file=str(file))
        return T5Tokenizer(**extracted, extra_ids=0, model_max_length=limit)


def _hex(text: str) -> str:
    return " ".join(f"{ord(character):X}" for character in text)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
