"""Parts image by image, as results: what reports, fits and the re-scoring read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json

from maskscore.codes import SkipCode
from maskscore.errors import InvalidDocumentError, ResultUnavailable
from maskscore.results.parts_dataset import PartsPlace, open_parts, place_text
from maskscore.results.superseded_rows import superseded_rows
from maskscore.schema import (
    Component,
    Failure,
    ImageInfo,
    JobResult,
    JobState,
    ModelIdentity,
    Notice,
    PromptScore,
    PromptSetIdentity,
    Skipped,
    View,
    ViewUsed,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

__all__ = ["ImageResult", "Listing", "box_of", "image_results", "top_k_of", "upstream_of"]

_BOX: Final = ("box_x", "box_y", "box_width", "box_height")
_VALUES: Final = (
    *("part", "area", "s_pos", "s_neg", "s_pos_text", "s_neg_text", "p_pos_sum", "p_neg_sum", "semantic_multiplier"),
    *("p_keep", "keep", "head_class"),
)
_SCORED: Final = ("method", "treatment", "views", "prompts_digest", "weights_digest")
_MASKS: Final = (
    *("job_id", "position", "mask_id", "mask_index", "skipped", "top_k", "upstream"),
    *(*_BOX, *_VALUES, *_SCORED),
)
_UPSTREAM: Final = "upstream_"
_ROWS: Final = 8192
Listing = Callable[[Iterable[tuple[str, Any]], int], Iterable[tuple[str, Any]]]
"""Passes parts on, by their paths, whose number is its second argument."""


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image of a shard.

    Parameters
    ----------
    result: ``succeeded`` with components, or ``failed`` with an error; its ``job_id`` is the shard's.
    image: URI, ``None`` for masks without an image and for damage.
    segmentations: of each component, COCO RLE or polygons; ``None`` where there is none, or they were not asked for.
    row: the image's row of ``images``.
    """

    result: JobResult
    image: str | None
    segmentations: Sequence[Any]
    row: dict[str, Any]


def image_results(
    place: PartsPlace,
    *,
    wanted: Callable[[str], bool] | None = None,
    listing: Listing = lambda parts, total: parts,
    embeddings: bool = False,
    segmentations: bool = False,
) -> Iterator[ImageResult]:
    """Yield each image of a place of parts with its masks, in the order of the parts.

    A failed image that was scored again later is yielded once, as what came of that. Of images that succeeded,
    ``wanted`` says by their URIs which are read at all; ``listing`` passes the parts on, whose number is its second
    argument, while their images are listed for it. Of parts without a wanted image, nothing else is read.
    ``embeddings`` and ``segmentations`` are read only if asked for. Memory is bounded by a few row groups. Raises
    :class:`~maskscore.errors.ResultUnavailable` where parts cannot be read, and
    :class:`~maskscore.errors.InvalidDocumentError` where they do not say how masks were scored.
    """
    import pyarrow as pa

    try:
        yield from _image_results(place, wanted, listing, embeddings=embeddings, segmentations=segmentations)
    except (pa.ArrowException, OSError) as error:
        raise ResultUnavailable(f"The parts in {place_text(place)} cannot be read: {error}.") from error


def _image_results(
    place: PartsPlace,
    wanted: Callable[[str], bool] | None,
    listing: Listing,
    *,
    embeddings: bool,
    segmentations: bool,
) -> Iterator[ImageResult]:
    import pyarrow.dataset as ds

    masks, images = open_parts(place, "masks"), open_parts(place, "images").dataset
    superseded = superseded_rows(images)
    of_masks: ds.FileSystemDataset = masks.dataset
    kept = kept_images = None
    if wanted is not None:
        uris, names = _wanted_images(images, wanted, listing)
        kept = ds.field("image").isin(uris)
        kept_images = kept | (ds.field("state") != str(JobState.SUCCEEDED))
        of_masks, images = _files_of(of_masks, names), _files_of(images, names)
    columns = [*_MASKS, *(name for name in of_masks.schema.names if name.startswith(_UPSTREAM))]
    columns += ["segmentation"] if segmentations else []
    columns += ["embedding"] if embeddings and "embedding" in of_masks.schema.names else []
    grouped = groupby(_rows(of_masks, columns, kept), key=itemgetter("job_id", "position"))
    views = cache(_views)
    for image in _rows(images, images.schema.names, kept_images):
        if (image["job_id"], image["position"]) in superseded:
            continue
        # A part's files have the same order, so the next masks are those of the next image that has some.
        own: list[dict[str, Any]] = []
        if image["mask_rows"]:
            key, rows = next(grouped, (None, iter(())))
            own = list(rows)
            if key != (image["job_id"], image["position"]) or len(own) != image["mask_rows"]:
                raise ResultUnavailable(
                    f"The parts in {place_text(place)} do not fit together: image {image['position']} of shard "
                    f"{image['job_id']} has {image['mask_rows']} masks in `images`, and others in `masks`."
                )
        first = own[0] if own else {}
        scoring = masks.scoring.get((image["job_id"], first.get("weights_digest") or ""), {})
        if first.get("views") == "soft_mask" and "views" not in scoring:
            raise InvalidDocumentError(
                f"The masks of the parts in {place_text(place)} were scored with soft_mask, and the parts do not say "
                "with which alpha."
            )
        found = [None if row.get("segmentation") is None else from_json(row["segmentation"]) for row in own]
        yield ImageResult(_result(image, own, scoring, views), image["image"], found, image)


def _wanted_images(
    images: ds.FileSystemDataset, wanted: Callable[[str], bool], listing: Listing
) -> tuple[pa.Array, set[tuple[str, str]]]:
    """Return the URIs of the wanted images, and the names of the parts that have some, or images that failed."""
    import pyarrow as pa

    uris: list[str] = []
    names: set[tuple[str, str]] = set()
    batches = images.to_batches(columns=["image", "state", "__filename"])
    by_file = groupby((one for one in batches if one.num_rows), key=lambda one: one["__filename"][0].as_py())
    for path, own in listing(by_file, len(images.files)):
        for batch in own:
            some = [uri for uri in batch["image"].to_pylist() if uri is not None and wanted(uri)]
            uris += some
            if some or batch["state"].unique().to_pylist() != [JobState.SUCCEEDED]:
                names.add(_part_name(path))
    return pa.array(uris, pa.string()), names


def _part_name(path: str) -> tuple[str, str]:
    """Return what the two files of a part have in common: their output, and their name."""
    output, _, name = path.rsplit("/", 2)
    return output, name


def _files_of(table: ds.FileSystemDataset, names: set[tuple[str, str]]) -> ds.FileSystemDataset:
    import pyarrow.dataset as ds

    files = [path for path in table.files if _part_name(path) in names]
    return ds.dataset(files, schema=table.schema, format=table.format, filesystem=table.filesystem)


def _rows(table: ds.Dataset, columns: Sequence[str], kept: ds.Expression | None) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(columns=list(columns), filter=kept, batch_size=_ROWS, batch_readahead=4):
        if "embedding" not in columns:
            yield from batch.to_pylist()
            continue
        rest = batch.drop_columns(["embedding"])
        for row, vector in zip(rest.to_pylist(), _vectors(batch.column("embedding")), strict=True):
            yield {**row, "embedding": vector}


def _vectors(column: pa.FixedSizeListArray) -> Iterator[str | None]:
    """Yield base64 of fp16 for each row, ``None`` where there is none."""
    # Those that are there, one after the other, of shape (N, D).
    vectors = iter(column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size))
    for there in column.is_valid().to_pylist():
        yield base64.b64encode(next(vectors).astype("<f2").tobytes()).decode() if there else None


def _result(
    image: dict[str, Any],
    rows: list[dict[str, Any]],
    scoring: dict[str, Any],
    views: Callable[[str | None], list[ViewUsed]],
) -> JobResult:
    # Nothing is validated, which would take most of the time: the columns are typed.
    fields: dict[str, Any] = {"job_id": image["job_id"], "batch_id": image["batch_id"]}
    if image["state"] != JobState.SUCCEEDED:
        error = Failure.model_construct(code=image["code"] or image["state"], message=image["message"] or "")
        return JobResult.model_construct(**fields, state=JobState.FAILED, error=error)
    about = ("etag", "format", "exif_orientation", "orientation_applied")
    fields["image"] = ImageInfo.model_construct(
        uri=image["image"],
        width=image["image_width"],
        height=image["image_height"],
        **{name: image[name] for name in about},
    )
    fields["warnings"] = [Notice.model_construct(**notice) for notice in image["warnings"] or ()]
    if rows:
        first = rows[0]
        model = scoring.get("model") or {"weights_digest": first["weights_digest"] or ""}
        prompts = scoring.get("prompts") or {"digest": first["prompts_digest"] or ""}
        fields["model"] = ModelIdentity.model_construct(**model)
        fields["prompts"] = PromptSetIdentity.model_construct(**{**prompts, "digest": first["prompts_digest"] or ""})
        fields |= {"method": first["method"], "treatment": first["treatment"]}
        fields["views"] = views(scoring.get("views") or first["views"])
    components = [_component(row) for row in rows]
    return JobResult.model_construct(**fields, state=JobState.SUCCEEDED, components=components)


def _views(text: str | None) -> list[ViewUsed]:
    if text is None:
        return []
    return [ViewUsed.model_validate(View.parse(one).recipe) for one in text.split("+")]


def _component(row: dict[str, Any]) -> Component:
    skipped = row["skipped"]
    return Component.model_construct(
        id=row["mask_id"],
        index=row["mask_index"],
        box=box_of(row),
        skipped=None if skipped is None else Skipped.model_construct(code=skipped, message=_why(skipped)),
        top_k=top_k_of(row),
        embedding=row.get("embedding"),
        upstream=upstream_of(row),
        **{name: row[name] for name in _VALUES},
    )


def box_of(row: dict[str, Any]) -> tuple[int, int, int, int] | None:
    """Return the box of a row of ``masks``: x, y, width and height in pixels."""
    x, y, width, height = (row[name] for name in _BOX)
    return None if x is None else (x, y, width, height)


def top_k_of(row: dict[str, Any]) -> list[PromptScore] | None:
    """Return the best prompts of a row of ``masks``; ``None`` where they were not asked for."""
    prompts = row.get("top_k")
    return None if prompts is None else [PromptScore.model_construct(**prompt) for prompt in prompts]


def upstream_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return the upstream fields of a row of ``masks``, from their own columns and from the one of all others."""
    own = {
        name.removeprefix(_UPSTREAM): value
        for name, value in row.items()
        if name.startswith(_UPSTREAM) and value is not None
    }
    return own | (from_json(row["upstream"]) if row["upstream"] else {})


@cache
def _why(code: str) -> str:
    """Return what a code means: parts do not keep the sentence of each mask."""
    try:
        meaning = SkipCode(code).about.meaning
    except ValueError:
        return ""
    return f"{meaning[:1].upper()}{meaning[1:]}."
