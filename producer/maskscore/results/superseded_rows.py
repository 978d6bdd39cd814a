"""Rows of ``images`` whose image was scored again: a later part has the row that counts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from maskscore.schema import JobState

if TYPE_CHECKING:
    import pyarrow.dataset as ds

__all__ = ["RETRY", "retry_name", "retry_number", "superseded_rows"]

RETRY: Final = ".retry-"
"""What stands between a name and a number in the names of shards that score images again."""

_RETRY: Final = re.compile(rf"{re.escape(RETRY)}(\d{{5,}})(?:-\d{{5,}}\.parquet)?$")


def retry_name(name: str, number: int) -> str:
    """Return what shard ``number``, from 0, of the images of a run that are scored again is called."""
    return f"{name}{RETRY}{number:05d}"


def retry_number(name: str) -> int | None:
    """Return the number of such a shard, by its name or that of one of its parts; ``None`` for any other shard."""
    found = _RETRY.search(name)
    return None if found is None else int(found[1])


def superseded_rows(images: ds.FileSystemDataset) -> set[tuple[str, int]]:
    """Return the shard's id and the position of each failed image of a table that was scored again later.

    The image's row of the last shard that scored it again counts; masks without an image are known by their own URI.
    Where no shard scored images again, nothing is read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    numbers = {path: number for path in images.files if (number := retry_number(path)) is not None}
    last: dict[str, str] = {}
    last_of_masks: dict[str, str] = {}
    for path in sorted(numbers, key=lambda path: numbers[path]):
        part = ds.dataset([path], schema=images.schema, filesystem=images.filesystem, format=images.format)
        rows = part.to_table(columns=["image", "masks", "job_id"]).to_pylist()
        last |= {row["image"]: row["job_id"] for row in rows if row["image"] is not None}
        last_of_masks |= {row["masks"]: row["job_id"] for row in rows if row["masks"] is not None}
    if not numbers:
        return set()
    image, masks = pc.field("image"), pc.field("masks")
    again = image.isin(pa.array(last, pa.string())) | (
        image.is_null() & masks.isin(pa.array(last_of_masks, pa.string()))
    )
    failed = (pc.field("state") != str(JobState.SUCCEEDED)) & again
    found = images.to_table(columns=["image", "masks", "job_id", "position"], filter=failed).to_pylist()
    return {
        (row["job_id"], row["position"])
        for row in found
        if row["job_id"] != (last_of_masks[row["masks"]] if row["image"] is None else last[row["image"]])
    }
