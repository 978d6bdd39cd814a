"""A producer of its own, to be killed: ``produce.py JOBS.jsonl BATCH_ID`` submits all of them as one batch."""

from __future__ import annotations

import sys
from pathlib import Path

from maskscore import Client, Job


def main() -> None:
    file, batch_id = Path(sys.argv[1]), sys.argv[2]
    with Client() as client, file.open(encoding="utf-8") as lines:
        batch = client.submit_many((Job.model_validate_json(line) for line in lines), batch_id=batch_id)
        print(len(batch))


if __name__ == "__main__":
    main()
