"""The masks of parts as results, one per image, for judgements to be joined to; needs pyarrow (``[export]``)."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from maskscore import results
from maskscore.errors import InvalidDocumentError, ResultUnavailable
from maskscore.schema import (
    Component,
    ImageInfo,
    JobResult,
    JobState,
    ModelIdentity,
    PromptSetIdentity,
    Skipped,
    View,
    ViewUsed,
)

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["are_parts", "results_of_parts"]

_IMAGE: Final = ("job_id", "position", "image", "image_width", "image_height", "method", "views")
_DIGESTS: Final = ("prompts_digest", "weights_digest")
_SCORES: Final = ("s_pos", "s_neg", "p_pos_sum", "p_neg_sum")
_MASK: Final = ("mask_id", "mask_index", "part", "skipped", *_SCORES)
_ROWS: Final = 8192


def are_parts(name: str) -> bool:
    """Say whether a name is that of a folder of parts, in S3 or local, and not that of a batch or a job."""
    return "/" in name or (Path(name) / "masks").is_dir()


def results_of_parts(
    place: str, without_result: Counter[str], *, wanted: Callable[[str], bool] | None, embeddings: bool
) -> Iterator[JobResult]:
    """Yield a result for each image of a folder of parts with the scores of its masks, in the order of the parts.

    ``wanted`` says by an image's URI whether it is read at all. ``embeddings`` are read only if asked for. Images that
    failed are counted by their code. Raises :class:`~maskscore.errors.ResultUnavailable` where parts cannot be read,
    and :class:`~maskscore.errors.InvalidDocumentError` where they do not say how masks were scored.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds

    masks = results.open(place)
    columns = [*_IMAGE, *_DIGESTS, *_MASK]
    if embeddings and "embedding" in masks.schema.names:
        columns.append("embedding")
    try:
        images = []
        for batch in results.open(place, "images").to_batches(columns=["image", "code"]):
            for row in batch.to_pylist():
                if row["code"] is not None:
                    without_result[row["code"]] += 1
                elif wanted is not None and wanted(row["image"]):
                    images.append(row["image"])
        kept = None if wanted is None else ds.field("image").isin(pa.array(images, pa.string()))
        batches = masks.to_batches(columns=columns, filter=kept, batch_size=_ROWS)
        rows = (row for batch in batches for row in _rows(batch))
        for _, own in groupby(rows, key=lambda row: (row["job_id"], row["position"])):
            yield _result(list(own), place)
    except (pa.ArrowException, OSError) as error:
        raise ResultUnavailable(f"The parts in {place} cannot be read: {error}.") from error


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    if "embedding" not in batch.schema.names:
        yield from batch.to_pylist()
        return
    embedding = batch.column("embedding")
    # Those that are there, one after the other, of shape (N, D).
    vectors = iter(embedding.flatten().to_numpy(zero_copy_only=False).reshape(-1, embedding.type.list_size))
    for row, there in zip(batch.drop_columns(["embedding"]).to_pylist(), embedding.is_valid().to_pylist(), strict=True):
        yield {**row, "embedding": next(vectors) if there else None}


def _result(rows: list[dict[str, Any]], place: str) -> JobResult:
    first = rows[0]
    image: dict[str, Any] = {"uri": first["image"], "width": first["image_width"], "height": first["image_height"]}
    model: dict[str, Any] = {"weights_digest": first["weights_digest"] or ""}
    prompts: dict[str, Any] = {"digest": first["prompts_digest"] or ""}
    # Nothing is validated, which would take most of the time: the columns are typed, and nothing else is read.
    return JobResult.model_construct(
        job_id=first["job_id"],
        state=JobState.SUCCEEDED,
        image=ImageInfo.model_construct(**image),
        model=ModelIdentity.model_construct(**model),
        prompts=PromptSetIdentity.model_construct(**prompts),
        method=first["method"],
        views=_views(first["views"], place),
        components=[_component(row) for row in rows],
    )


@cache
def _views(text: str | None, place: str) -> list[ViewUsed]:
    if text == "soft_mask":
        raise InvalidDocumentError(
            f"The masks of the parts in {place} were scored with soft_mask, and parts do not say with which alpha, for "
            "which a head would hold. Fit it to jobs."
        )
    return [ViewUsed.model_validate(View.parse(one).recipe) for one in text.split("+")] if text else []


def _component(row: dict[str, Any]) -> Component:
    vector, skipped = row.get("embedding"), row["skipped"]
    return Component.model_construct(
        id=row["mask_id"],
        index=row["mask_index"],
        part=row["part"],
        skipped=None if skipped is None else Skipped.model_construct(code=skipped, message=""),
        embedding=None if vector is None else base64.b64encode(vector.astype("<f2").tobytes()).decode(),
        **{name: row[name] for name in _SCORES},
    )
