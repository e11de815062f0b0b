"""What is on this machine already: pretrained weights."""

import os
from pathlib import Path

WEIGHTS = "torchvision:r3d_18"  # trained on Kinetics-400
FILE = "r3d_18-b3b3357e.pth"
HOW_TO_GET = (
    f"pretrained weights would most likely give a better accuracy: --weights {WEIGHTS} downloads "
    "130 MB once, or --weights FILE.pth (python -m util_scripts.weights lists more)"
)


def cached_weights() -> str | None:
    """Return the path of pretrained weights that torch has downloaded before, if any."""
    path = _torch_cache() / FILE
    return str(path) if path.is_file() else None


def _torch_cache() -> Path:
    """Return torch.hub's folder of checkpoints, without importing torch."""
    home = os.environ.get("TORCH_HOME")
    if home is None:
        cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
        home = os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
