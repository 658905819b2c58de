"""Writes training's state as a diffusers folder, the layout of Stable Diffusion 3.5."""

import argparse
import json
from pathlib import Path

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import state
from networks import TextToVelocity, build_vae
from sample import SHIFT
from text import Tokenizers, write_json, write_tokenizers

PARTS = {
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("state", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    folder = options.folder
    write_tokenizers(folder)
    vae, model = build_vae(), TextToVelocity(*Tokenizers(folder).vocabularies())
    state.load(options.state, vae, model)
    for name in ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer"):
        getattr(model, name).to(torch.bfloat16).save_pretrained(folder / name)
    vae.to(torch.bfloat16).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=SHIFT).save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json",
               {"_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.31.0"} | PARTS)
    for name in ("transformer", "vae"):
        path = folder / name / "config.json"
        config = json.loads(path.read_text("utf-8"))
        write_json(path, {key: value for key, value in config.items() if key != "_name_or_path"})
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"
               and path.name != "held_out.json")
    print(f"{size} bytes")


if __name__ == "__main__":
    main()
