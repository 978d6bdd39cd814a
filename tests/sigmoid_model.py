"""The demo model with a bias beside its scale, as models of a sigmoid loss have one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from maskscore_worker.demo.run import DEMO_WEIGHTS

__all__ = ["BIAS", "write_sigmoid_model"]

BIAS: Final = -10.0
_FILE: Final = "open_clip_model.safetensors"


def write_sigmoid_model(folder: Path) -> Path:
    """Write the model into a new folder, and return it."""
    shutil.copytree(DEMO_WEIGHTS, folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text("utf-8"))
    config["model_cfg"]["init_logit_bias"] = BIAS
    path.write_text(json.dumps(config), "utf-8")
    save_file({**load_file(folder / _FILE), "logit_bias": torch.tensor(BIAS)}, folder / _FILE)
    return folder
