"""Triton's kernels equal PyTorch's operations; test_device_cropper runs this under ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import numpy as np
import torch

from maskscore.imaging import ClipTransform, treatment_tables
from maskscore.schema import View
from maskscore_worker.crops import torch_ops, triton_ops
from maskscore_worker.crops.crop_plan import plan_crops
from maskscore_worker.masks.regions import Region

SIZE = 6
CASES = (
    (View(treatment="soft_mask"), ClipTransform(SIZE)),
    (View(treatment="mean_fill", frame="pad"), ClipTransform(SIZE, "squash", "bilinear")),
    (View(treatment="raw_crop"), ClipTransform(SIZE, "longest", fill=(1, 120, 250))),
)


def main() -> None:
    """Print ``equal`` for each case in which both are."""
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.choice(np.array([0, 50, 255], np.uint8), (19, 14, 3)))
    regions = []
    # Made smaller, made larger, taller than twice its width (by columns first), one pixel.
    for box in ((0, 0, 14, 11), (3, 2, 4, 3), (2, 1, 8, 18), (13, 18, 1, 1)):
        bits = rng.random((box[3], box[2])) < 0.6
        bits[0, 0] = True
        regions.append(Region(0, "", None, box, int(bits.sum()), 19, bits))
    for view, transform in CASES:
        drawn = treatment_tables(view.treatment, view.alpha)
        sides = None if drawn is None else [list(drawn.outside), list(drawn.inside)]
        tables = None if sides is None else torch.tensor(sides, dtype=torch.uint8)
        plan = plan_crops(regions, view, transform).to(torch.device("cpu"))
        ours, theirs = (make(image, plan, tables) for make in (triton_ops.make_crops, torch_ops.make_crops))
        assert len(torch.unique(theirs)) > 20
        print("equal" if torch.equal(ours, theirs) else "different")


if __name__ == "__main__":
    main()
