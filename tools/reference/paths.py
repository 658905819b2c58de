"""Where fixtures go: everything is written into the repository that this file lies in."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = REPOSITORY / "crates" / "models" / "tests" / "fixtures"
PIPELINE = REPOSITORY / "crates" / "pipeline" / "tests" / "fixtures"
SCHEDULERS = REPOSITORY / "crates" / "schedulers" / "tests" / "fixtures"


def network_folder(network: str, case: str) -> Path:
    """The folder of one case of one network, empty."""
    folder = MODELS / network / case
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    return folder
