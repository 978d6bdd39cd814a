"""A run of tar files of its own, to be killed: ``run_tars.py PLACE BATCH_ID OUTPUT PART_IMAGES [resume]``.

It does what ``maskscore run`` does, with smaller parts.
"""

from __future__ import annotations

import json
import sys

from maskscore import Client, ScoringOptions
from maskscore.dataset import Dataset, RunOptions, run_shards


def main() -> None:
    place, batch_id, output, part_images, *resume = sys.argv[1:]
    options = RunOptions(ScoringOptions(prompts="demo"), {"part_images": int(part_images)})
    with Client() as client:
        summary = run_shards(client, Dataset(place), output, options, batch_id=batch_id, resume=bool(resume))
    print(json.dumps(summary.document()))


if __name__ == "__main__":
    main()
