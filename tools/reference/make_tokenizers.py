"""The ids of texts, padded and truncated as in the pipeline: `tokenizers.json`."""

import json

from tokenizers import Tokenizer
from transformers import CLIPTokenizer, T5Tokenizer

from corpus import TEXTS
from make_models import FOLDER
from paths import PIPELINE

# The tokenizer's folder, its class and the length of its rows.
TOKENIZERS = [
    ("tiny-large/tokenizer", CLIPTokenizer, 77),
    ("tiny-large/tokenizer_2", CLIPTokenizer, 77),
    ("tiny-medium/tokenizer", CLIPTokenizer, 24),
    ("tiny-medium/tokenizer_2", CLIPTokenizer, 24),
    ("tiny-large/tokenizer_3", T5Tokenizer, 256),
    ("tiny-medium/tokenizer_3", T5Tokenizer, 32),
]


def encode(folder: str, kind: type, length: int) -> dict:
    """All texts by one tokenizer; `tokens` counts the ids, special ones too, before truncation and padding."""
    tokenizer = kind.from_pretrained(FOLDER / folder)
    entries = []
    for text in TEXTS:
        whole = tokenizer(text).input_ids
        ids = tokenizer(text, padding="max_length", max_length=length, truncation=True).input_ids
        assert len(ids) == length
        entries.append({"text": text, "tokens": len(whole), "ids": ids})
    file = FOLDER / folder / "tokenizer.json"
    if file.exists():
        plain = Tokenizer.from_file(str(file))
        assert all(plain.encode(text).ids == tokenizer(text).input_ids for text in TEXTS)
    return {"folder": f"models/{folder}", "length": length, "padding": tokenizer.pad_token_id, "texts": entries}


def main() -> None:
    results = [encode(*tokenizer) for tokenizer in TOKENIZERS]
    # One text a line.
    lines = []
    for result in results:
        head = json.dumps({name: value for name, value in result.items() if name != "texts"})[:-1]
        texts = ",\n  ".join(json.dumps(entry, separators=(",", ":")) for entry in result["texts"])
        lines.append(f'{head}, "texts": [\n  {texts}\n ]}}')
    (PIPELINE / "tokenizers.json").write_text("[\n " + ",\n ".join(lines) + "\n]\n")
    assert json.loads((PIPELINE / "tokenizers.json").read_text()) == results
    print(f"{len(results)} tokenizers, {len(TEXTS)} texts each")


if __name__ == "__main__":
    main()
