"""Files as torch.save writes them: tables of tensors of every sort, wrapped ones, and such as must be refused."""

import os

import torch
from safetensors.torch import save_file
from torch import nn

from paths import REPOSITORY

FOLDER = REPOSITORY / "crates" / "weights" / "tests" / "fixtures" / "torch"


class Harmful:
    """What a pickle could do."""

    def __reduce__(self):
        return os.system, ("true",)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    torch.manual_seed(71)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.PReLU(4), nn.BatchNorm2d(4))
    # A state has the versions of its modules as an attribute; the norm counts in whole numbers.
    state = network.state_dict()
    table = torch.randn(6, 5)
    state["half"], state["brain"] = torch.randn(3, 2).half(), torch.randn(7).bfloat16()
    # Two tensors of one storage, the second not from its beginning.
    state["table"], state["rows"] = table, table[2:4]
    state["parameter"] = nn.Parameter(torch.randn(2, 2))
    state["scalar"], state["empty"] = torch.tensor(2.5), torch.zeros(0, 3)
    save_file({name: value.detach().clone() for name, value in state.items()}, FOLDER / "expected.safetensors")

    torch.save(state, FOLDER / "state.pth")
    average = {name: value + 1 for name, value in state.items()}
    torch.save({"params": average, "params_ema": state}, FOLDER / "wrapped.pth")
    training = {"epoch": 3, "rates": [0.1, (2, None, True)], "optimizer": {0: {"step": 70000}}, "state_dict": state}
    torch.save(training, FOLDER / "training.ckpt")
    torch.save({"generator": {"body": dict(state)}, "big": 2**70}, FOLDER / "nested.bin")

    torch.save({"turned": torch.randn(3, 4).t()}, FOLDER / "turned.pth")
    torch.save({"weight": torch.zeros(2), "other": Harmful()}, FOLDER / "harmful.pth")
    torch.save({"weight": torch.zeros(2)}, FOLDER / "old.pth", _use_new_zipfile_serialization=False)
    torch.save([1, 2], FOLDER / "list.pth")
    for file in sorted(FOLDER.iterdir()):
        print(f"torch/{file.name}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
