"""Triton's kernels equal PyTorch's operations; test_device_cropper runs this under ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import numpy as np
import torch

from maskscore.imaging.treatments import treatment_tables
from maskscore_worker.crops import torch_ops, triton_ops
from maskscore_worker.crops.crop_plan import plan_crops
from maskscore_worker.masks.regions import Region

SIZE = 6


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
    soft, mean = treatment_tables("soft_mask", 0.4), treatment_tables("mean_fill", 0.4)
    assert soft is not None
    assert mean is not None
    drawn = [torch.tensor([list(each.outside), list(each.inside)], dtype=torch.uint8) for each in (soft, mean)]
    for tables in (*drawn, None):
        plan = plan_crops(regions, SIZE, masked=tables is not None).to(torch.device("cpu"))
        ours, theirs = (make(image, plan, tables, SIZE) for make in (triton_ops.make_crops, torch_ops.make_crops))
        assert len(torch.unique(theirs)) > 20
        print("equal" if torch.equal(ours, theirs) else "different")


if __name__ == "__main__":
    main()
