"""Writes ``worker/maskscore_worker/weights/pretrained.json``: the weights that open_clip lists, and their figures.

Run as ``PYTHONPATH=tests python -m pretrained_table DOCS``, where ``DOCS`` is the folder ``docs`` of a clone of
https://github.com/mlfoundations/open_clip (MIT): ``openclip_results.csv`` has the zero-shot accuracy on ImageNet,
``model_profile.csv`` the FLOPs of the image tower. The rest is the installed open_clip's own table. Where
``model_profile.csv`` has no row, FLOPs are counted by PyTorch (``torch.utils.flop_counter``) on a model without memory
(the ``meta`` device), and said to be counted. Both count a multiplication and an addition as two.
"""

from __future__ import annotations

import csv
import fnmatch
import json
import sys
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.pretrained import _PRETRAINED
from torch.utils.flop_counter import FlopCounterMode

TABLE = Path(__file__).parents[1] / "worker/maskscore_worker/weights/pretrained.json"
QUICK_GELU = "-quickgelu"
PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")
PUBLISHED = "open_clip docs/PRETRAINED.md"
CARD = "the model card on the hub"
# By repository on the hub, the first that fits; what open_clip, the model's card or its makers' repository states.
# Where no statement was found there is none here, and it is shown as unknown: a family's other cards prove nothing.
LICENCES = {
    "timm/vit_base_patch16_clip_224.metaclip_*": ("cc-by-nc-4.0", CARD),
    "timm/vit_huge_patch14_clip_224.metaclip_2pt5b/": ("cc-by-nc-4.0", CARD),
    "timm/*.metaclip_altogether/": ("cc-by-nc", "https://github.com/facebookresearch/MetaCLIP"),
    "timm/*.metaclip_*": ("cc-by-nc", PUBLISHED),
    "timm/eva*": ("mit", PUBLISHED),
    "timm/ViT-*SigLIP2*": ("apache-2.0", CARD),
    "timm/ViT-*SigLIP*": ("apache-2.0", PUBLISHED),
    "timm/PE-Core-*": ("apache-2.0", "https://github.com/facebookresearch/perception_models"),
    "timm/MobileCLIP2-*": ("apple-amlr", "https://github.com/apple/ml-mobileclip"),
    "apple/MobileCLIP-*": ("apple-amlr", CARD),
    "apple/DFN*": ("apple-amlr", CARD),
    "visheratin/*": ("cc-by-nc", PUBLISHED),
    "UCSC-VLAA/*": ("apache-2.0", PUBLISHED),
    "timm/resnet50*_clip.*": ("mit", CARD),
    "timm/vit_base_patch32_clip_224.openai/": ("apache-2.0", CARD),
    "timm/vit_large_patch14_clip_224.openai/": ("apache-2.0", CARD),
    "jienengchen/ViTamin-L-384px/*": ("mit", CARD),
    "jienengchen/ViTamin-XL-3*px/*": ("mit", CARD),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K/": ("mit", CARD),
    "laion/CLIP-ViT-B-*-DataComp.XL-s13B-b90K/": ("mit", CARD),
    "laion/CLIP-ViT-B-32-DataComp.S-s13M-b4K/": ("mit", CARD),
    "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k/": ("mit", CARD),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k/": ("mit", CARD),
    "laion/CLIP-convnext_base-laion400M-s13B-b51K/": ("mit", CARD),
    "laion/*CoCa-ViT-*": ("mit", CARD),
}


def tags() -> list[dict[str, Any]]:
    """Return open_clip's table, a row for each tag. Those under ``…-quickgelu`` are copies, and left out."""
    return [
        {
            "architecture": architecture,
            "tag": tag,
            "hub": about["hf_hub"],
            "quick_gelu": bool(about.get("quick_gelu")),
            **{key: list(about[key]) if isinstance(about[key], tuple) else about[key] for key in PREPROCESSING},
        }
        for architecture, of_architecture in _PRETRAINED.items()
        if not architecture.endswith(QUICK_GELU)
        for tag, about in of_architecture.items()
    ]


def licence(hub: str) -> tuple[str | None, str | None]:
    """Return the licence of a repository's weights and who states it, from :data:`LICENCES`."""
    return next((known for pattern, known in LICENCES.items() if fnmatch.fnmatch(hub, pattern)), (None, None))


def counted(architecture: str) -> tuple[int, float]:
    """Return the parameters of an architecture, and the GFLOPs of its image tower for one crop."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused kernel would not be counted
    with torch.device("meta"):
        model = (
            open_clip.create_model(architecture, pretrained=None, load_weights=False, device="meta")
            .eval()
            .requires_grad_(False)
        )
        size = model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        with FlopCounterMode(display=False) as counter:
            model.encode_image(torch.empty(1, 3, height, width))
    torch.backends.mha.set_fastpath_enabled(fast)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 1e9


def about_architecture(name: str, profile: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Return the size of an architecture's images, its parameters (millions) and the GFLOPs of a crop."""
    size = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
    known = {
        "image_size": size[0] if isinstance(size, list) else size,
        "own_text_tower": "hf_model_name" not in open_clip.get_model_config(name)["text_cfg"],
    }
    if name in profile:
        row = profile[name]
        return {**known, "mparams": float(row["mparams"]), "gflops": float(row["image_gflops"]), "counted": False}
    parameters, gflops = counted(name)
    return {**known, "mparams": round(parameters / 1e6, 2), "gflops": round(gflops, 2), "counted": True}


def main(docs: Path) -> None:
    results = {(row["name"], row["pretrained"]): row for row in csv.DictReader((docs / "openclip_results.csv").open())}
    profile = {row["model"]: row for row in csv.DictReader((docs / "model_profile.csv").open())}
    rows = tags()
    for row in rows:
        names = [row["architecture"] + QUICK_GELU] if row["quick_gelu"] else []
        found = [results[name, row["tag"]] for name in (*names, row["architecture"]) if (name, row["tag"]) in results]
        row["imagenet"] = float(found[0]["ImageNet 1k"]) if found else None
        row["licence"], row["licence_from"] = licence(row["hub"])
    architectures = {}
    for name in dict.fromkeys(row["architecture"] for row in rows):
        architectures[name] = about_architecture(name, profile)
        print(name, architectures[name], file=sys.stderr)
    lines = {
        "source": json.dumps(
            "mlfoundations/open_clip: pretrained.py, docs/openclip_results.csv, docs/model_profile.csv"
        ),
        "licence": json.dumps("MIT, of this table; the weights have their own"),
        "open_clip": json.dumps(open_clip.__version__),
        "architectures": "{\n"
        + ",\n".join(f"  {json.dumps(n)}: {json.dumps(a)}" for n, a in architectures.items())
        + "\n}",
        "tags": "[\n" + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n]",
    }
    TABLE.write_text("{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in lines.items()) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
