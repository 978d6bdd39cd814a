"""A producer in a process of its own, which release 0 can run as well: jobs of one mask and their results.

    python small_jobs.py REDIS_URL NAMESPACE IMAGE_URI < lines

The first line of the input is a mask in COCO's RLE as JSON, each other one a number of jobs; for each it prints the
seconds from the first submit to the last result.
"""

from __future__ import annotations

import json
import sys
import time

from maskscore import Client, ClientSettings, Job, Mask, ScoringOptions


def main(redis_url: str, namespace: str, image: str) -> None:
    """Read numbers and print seconds, until the input ends."""
    mask = Mask(id="1", segmentation=json.loads(sys.stdin.readline()))
    with Client(ClientSettings(redis_url=redis_url, namespace=namespace)) as client:
        for line in sys.stdin:
            jobs = [Job(image=image, masks=[mask], options=ScoringOptions(prompts="demo")) for _ in range(int(line))]
            started = time.perf_counter()
            results = list(client.as_completed(client.submit_many(jobs), timeout=900))
            seconds = time.perf_counter() - started
            if len(results) != len(jobs) or any(str(result.state) != "succeeded" for result in results):
                raise AssertionError(f"{len(jobs)} jobs were submitted, {len(results)} results came: {results[:1]}")
            print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
