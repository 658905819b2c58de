"""Trains the demo model: the autoencoder first, then the flow. README.md has the commands."""

import argparse
import time
from pathlib import Path

import torch
from PIL import Image

import flow
import sample
import state
import vae as autoencoder
from data import Images
from judge import faults
from language import held_out_prompts
from networks import TextToVelocity, build_vae
from text import Tokenizers, write_tokenizers

SHOWN = [
    "a red circle", "two green squares on a black background", "a small blue triangle at the top left",
    "three yellow stars on a purple background", "a red circle to the left of a blue square", "a large pink heart",
    "epic landscape", "a house by the sea at sunset", "mountains under a full moon", "a boat on the sea at night with stars",
    "a red house in the hills", "a mountain lake with a boat with a yellow sail", "trees and mountains by day",
    "five orange rings on a blue background", "a cyan diamond above a red cross", "a white star inside a blue circle",
    "a house and two trees on a hill at night", "the sea at sunset with clouds",
]

# The number of latents that the flow regenerates for training the decoder.
REGENERATED = 32000


def report(model, vae, tokenizers, device: str, out: Path, seconds_left) -> None:
    """Generates the sheet of examples and counts the right held-out images, at several settings."""
    empty = torch.from_numpy(tokenizers([""])).to(device)[0]
    ids = torch.from_numpy(tokenizers(SHOWN)).to(device)
    images = sample.generate(model, vae, ids, empty, [42] * len(SHOWN))
    Image.fromarray(sample.grid(images, 6)).save(out / "sheet.png")
    prompts = held_out_prompts()
    ids = torch.from_numpy(tokenizers([prompt for prompt, _ in prompts])).to(device)
    for guidance, shift in ((2.0, 2.0), (3.0, 2.0), (1.5, 2.0), (2.0, 1.0), (2.0, 3.0), (4.0, 2.0)):
        if seconds_left() < 12:
            break
        images = sample.generate(model, vae, ids, empty, [42 + number for number in range(len(prompts))], guidance=guidance, shift=shift)
        wrong = [(prompt, found) for image, (prompt, scene) in zip(images, prompts) if (found := faults(image, scene))]
        print(f"guidance {guidance} shift {shift}: {len(prompts) - len(wrong)} of {len(prompts)} right", flush=True)
        if (guidance, shift) == (2.0, 2.0):
            for prompt, found in wrong[:25]:
                print("   ", prompt, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the state and the sheet of examples")
    parser.add_argument("--resume", type=Path, help="folder of an earlier run's state")
    parser.add_argument("--work", type=Path, default=Path("/tmp/demo"), help="folder for the tokenizers")
    parser.add_argument("--minutes", type=float, default=9, help="for everything")
    parser.add_argument("--vae-seconds", type=float, default=150, help="for the autoencoder")
    parser.add_argument("--decoder-seconds", type=float, default=0, help="for the decoder at the end, with latents that the flow made")
    parser.add_argument("--keep-encoder", action="store_true", help="train the autoencoder's decoder only")
    parser.add_argument("--keep-flow", action="store_true", help="do not train the flow")
    parser.add_argument("--images", type=int, default=160000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--vae-batch", type=int, default=32)
    parser.add_argument("--rates", type=float, nargs=2, default=(1e-3, 5e-4), help="first and last learning rate of the flow")
    parser.add_argument("--vae-rate", type=float, default=2e-3)
    parser.add_argument("--report-seconds", type=float, default=18, help="for the images and figures at the end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="do not compile")
    options = parser.parse_args()
    begun = time.time()

    def left() -> float:
        return options.minutes * 60 - (time.time() - begun)

    options.out.mkdir(parents=True, exist_ok=True)
    write_tokenizers(options.work)
    images = Images(options.images, options.work, options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.manual_seed(options.seed)
    tokenizers = Tokenizers(options.work)
    vae, model = build_vae(), TextToVelocity(*tokenizers.vocabularies())
    if options.resume:
        state.load(options.resume, vae, model)
    decoder = vae.decoder if options.plain else torch.compile(vae.decoder)
    images.load(device)
    images.wait(6000)
    print(f"first images at {time.time() - begun:.0f} s", flush=True)
    if options.vae_seconds > 0:
        quality = autoencoder.train(vae, decoder, images, options.vae_seconds, options.vae_batch, options.vae_rate,
                                    options.keep_encoder, not options.plain)
        print(f"vae {quality:.2f} dB at {time.time() - begun:.0f} s", flush=True)
    vae.to(device)
    images.wait(options.images)
    print(f"all images at {time.time() - begun:.0f} s", flush=True)
    latents = autoencoder.encode_all(vae, images)
    if not options.keep_encoder:
        autoencoder.measure_scale(vae, latents)
    print(f"latents at {time.time() - begun:.0f} s, shift {vae.config.shift_factor} scale {vae.config.scaling_factor}", flush=True)
    empty = torch.from_numpy(tokenizers([""])).to(device)[0]
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    if options.keep_flow:
        average = model.to(device).eval()
    else:
        flow_seconds = max(10.0, left() - options.decoder_seconds - options.report_seconds)
        average = flow.train(model, latents, images.ids, empty.long(), shift, scale, flow_seconds, options.batch, options.rates,
                             not options.plain)
    state.save(options.out, vae, average)
    print(f"flow ends at {time.time() - begun:.0f} s", flush=True)
    if options.decoder_seconds > 0:
        regenerated = flow.regenerate(average, latents[:REGENERATED], images.ids, empty.long(), shift, scale, sample.GUIDANCE, not options.plain)
        print(f"regenerated at {time.time() - begun:.0f} s", flush=True)
        quality = autoencoder.train(vae, decoder, images, max(5.0, left() - options.report_seconds), options.vae_batch, options.vae_rate,
                                    True, not options.plain, [regenerated, latents[:REGENERATED]])
        print(f"vae {quality:.2f} dB at {time.time() - begun:.0f} s", flush=True)
        state.save(options.out, vae, average)
    shown = images.images[:12].float() / 127.5 - 1
    with torch.no_grad():
        made = vae.decode(vae.encode(shown).latent_dist.mean).sample
    both = torch.cat([shown, made]).clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    Image.fromarray(sample.grid(both, 12)).save(options.out / "reconstructions.png")
    images.images = None
    report(average, vae, tokenizers, device, options.out, left)
    print(f"done at {time.time() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
