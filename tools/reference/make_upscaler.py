"""Small random networks of Real-ESRGAN, defined here from its papers, in the files that people pass around."""

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from checks import check_inputs, check_weights, describe
from paths import MODELS, network_folder
from weights import randomise


class DenseBlock(nn.Module):
    """Five convolutions, of which each sees what went in and what all before it gave (ESRGAN, figure 4)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 6):
            outputs = growth if index < 5 else features
            setattr(self, f"conv{index}", nn.Conv2d(features + (index - 1) * growth, outputs, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = x
        for index in range(1, 5):
            grown = functional.leaky_relu(getattr(self, f"conv{index}")(seen), 0.2)
            seen = torch.cat([seen, grown], 1)
        return x + 0.2 * self.conv5(seen)


class ResidualInResidual(nn.Module):
    """Three dense blocks with the input carried around them."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(features, growth) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RRDBNet(nn.Module):
    """The generator of Real-ESRGAN, with pixel unshuffle for scales below 4."""

    def __init__(self, scale: int, features: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.unshuffled = 4 // scale
        self.conv_first = nn.Conv2d(3 * self.unshuffled**2, features, 3, padding=1)
        self.body = nn.Sequential(*[ResidualInResidual(features, growth) for _ in range(blocks)])
        for name in ["conv_body", "conv_up1", "conv_up2", "conv_hr"]:
            setattr(self, name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_last = nn.Conv2d(features, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv_first(functional.pixel_unshuffle(x, self.unshuffled))
        x = first + self.conv_body(self.body(first))
        for conv in [self.conv_up1, self.conv_up2]:
            x = functional.leaky_relu(conv(functional.interpolate(x, scale_factor=2, mode="nearest")), 0.2)
        return self.conv_last(functional.leaky_relu(self.conv_hr(x), 0.2))


class SRVGGNetCompact(nn.Module):
    """The small network of Real-ESRGAN: it computes at the size of the image and adds the image at the end."""

    def __init__(self, scale: int, features: int, hidden: int) -> None:
        super().__init__()
        self.scale = scale
        layers = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(hidden):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers, nn.Conv2d(features, 3 * scale**2, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        larger = functional.interpolate(x, scale_factor=self.scale, mode="nearest")
        return larger + functional.pixel_shuffle(self.body(x), self.scale)


def make(case: str, seed: int, model: nn.Module, size: tuple[int, int], wrapper: str | None) -> None:
    """Writes a network, as a `.pth` inside of `wrapper` or as safetensors, and its result for an image."""
    print(f"upscaler/{case}")
    randomise(model, seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    image = torch.rand(1, 3, *size, generator=generator)
    factor = getattr(model, "unshuffled", 1)
    # Odd images are padded by reflection, and the result is cropped.
    whole = functional.pad(image, (0, -size[1] % factor, 0, -size[0] % factor), mode="reflect")

    def upscaled(image: torch.Tensor) -> torch.Tensor:
        return model(image)

    result = upscaled(whole)
    scale = result.shape[2] // whole.shape[2]
    tensors = {"picture": image, "enlarged": result[:, :, : scale * size[0], : scale * size[1]]}
    describe(case, tensors)
    check_inputs(upscaled, {"picture": whole})
    check_weights(model, result)
    folder = network_folder("upscaler", case)
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    if wrapper is None:
        save_file(state, folder / "model.safetensors")
    else:
        torch.save({wrapper: state}, folder / "model.pth")
    save_file({name: value.detach().contiguous() for name, value in tensors.items()}, folder / "case.safetensors")


def first_name(name: str, blocks: int) -> str:
    """The name of a tensor of a network of scale 4 in ESRGAN's first release."""
    place, kind = name.rsplit(".", 1)
    around = {"conv_first": 0, "conv_up1": 3, "conv_up2": 6, "conv_hr": 8, "conv_last": 10}
    if place in around:
        return f"model.{around[place]}.{kind}"
    if place == "conv_body":
        return f"model.1.sub.{blocks}.{kind}"
    _, block, dense, conv = place.split(".")
    return f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{kind}"


def second_name(name: str) -> str:
    """Its name in the second release."""
    around = {"conv_body": "trunk_conv", "conv_up1": "upconv1", "conv_up2": "upconv2", "conv_hr": "HRconv"}
    place, kind = name.rsplit(".", 1)
    if place.startswith("body."):
        _, block, dense, conv = place.split(".")
        return f"RRDB_trunk.{block}.{dense.upper()}.{conv}.{kind}"
    return f"{around.get(place, place)}.{kind}"


def rename(case: str) -> None:
    """Saves the network of a case under the names of every release, and in tables of tables."""
    folder = MODELS / "upscaler" / case
    state = load_file(folder / "model.safetensors")
    blocks = len({name.split(".")[1] for name in state if name.startswith("body.")})
    releases = {
        "first": {first_name(name, blocks): value for name, value in state.items()},
        "second": {second_name(name): value for name, value in state.items()},
        "parallel": {f"module.{second_name(name)}": value for name, value in state.items()},
        "nested": {"iter": 7, "state_dict": {"params": {"conv_first.weight": torch.zeros(1)}, "params_ema": state}},
    }
    for name, state in releases.items():
        torch.save(state, folder / f"{name}.pth")


def main() -> None:
    make("x4", 81, RRDBNet(scale=4, features=8, blocks=2, growth=4), (9, 7), "params_ema")
    make("x2", 82, RRDBNet(scale=2, features=8, blocks=1, growth=4), (11, 8), "params_ema")
    make("names", 86, RRDBNet(scale=4, features=4, blocks=2, growth=2), (6, 5), None)
    rename("names")
    make("x1", 83, RRDBNet(scale=1, features=8, blocks=1, growth=4), (12, 16), None)
    make("compact", 84, SRVGGNetCompact(scale=4, features=8, hidden=3), (7, 10), "params")
    make("compact-x3", 85, SRVGGNetCompact(scale=3, features=8, hidden=2), (6, 5), None)


if __name__ == "__main__":
    main()
