"""Writes the tasks of a review: reads a batch, samples its masks, and draws those of the sample."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from maskscore.client import Batch, Client
from maskscore.errors import OutputError
from maskscore.export import ExportCounts, ExportedJob, Parts, Selection, read_jobs
from maskscore.heads import HeadApplication
from maskscore.review.image_urls import ImageUnavailable, ImageUrls
from maskscore.review.images_of_parts import TarImages, read_images
from maskscore.review.label_studio_tasks import labelling_configuration, shape_of, task_of
from maskscore.review.mask_sampling import DoubtMeasure, MaskSample, SampledMask, sample_masks, sampling_key
from maskscore.review.parts_sampling import sample_parts
from maskscore.schema import ImageInfo
from maskscore.storage import check_output, object_path, output_file, write_text

__all__ = ["ReviewCounts", "ReviewOptions", "check_review_output", "write_review"]

_EXAMPLES: Final = 3
Progress = Callable[[Iterator[str]], Iterator[str]]


@dataclass(frozen=True, slots=True)
class ReviewOptions:
    """What is asked for: how many masks of each share, the measure of doubt, the classes (none: keep and drop).

    A ``head`` decides on all masks first, so that ``p_keep`` is its own.
    """

    doubtful: int
    random: int
    seed: int
    measure: DoubtMeasure
    classes: Sequence[str] = ()
    head: HeadApplication | None = None


@dataclass(slots=True)
class ReviewCounts:
    """What was written, and what could not be.

    ``furthest`` is the largest doubt among the doubtful masks. ``unavailable`` counts the masks that were chosen and
    left out, ``reasons`` says of some of them why. ``without_result`` counts the batch's jobs that have no result, by
    code. ``local_folder`` holds all images that are local files, ``s3_images`` counts those that are not.
    """

    scored: int = 0
    tasks: int = 0
    doubtful: int = 0
    random: int = 0
    furthest: float | None = None
    unavailable: int = 0
    reasons: list[str] = field(default_factory=list)
    without_result: dict[str, int] = field(default_factory=dict)
    local_folder: str | None = None
    s3_images: int = 0

    def add_image(self, uri: str) -> None:
        """Count the image of a task."""
        if not uri.startswith("file:"):
            self.s3_images += 1
            return
        folder = os.path.dirname(f"/{object_path(uri)}")  # noqa: PTH120 - commonpath takes and gives text
        self.local_folder = os.path.commonpath([self.local_folder or folder, folder])

    def leave_out(self, masks: int, reason: str) -> None:
        """Count chosen masks that are not in the tasks."""
        self.unavailable += masks
        if len(self.reasons) < _EXAMPLES:
            self.reasons.append(reason)


def check_review_output(output: Path, classes: Sequence[str], *, named: bool) -> Path:
    """Return where the configuration goes, beside the tasks; call it before the work.

    Raises :class:`~maskscore.errors.OutputError` where the tasks cannot be written, and where another configuration
    stands already: somebody may have changed it by hand.
    """
    check_output(output, named=named)
    path = output.with_suffix(".xml")
    if path == output:
        raise OutputError(f"{output} has the ending of the labelling configuration, which is written beside the tasks.")
    check_output(path)
    if path.exists() and path.read_bytes() != labelling_configuration(classes).encode():
        raise OutputError(
            f"{path} exists, and is not the labelling configuration of these tasks. Remove it, or give another name "
            "by -o."
        )
    return path


def write_review(
    client: Client,
    batch: Batch | Parts,
    output: Path,
    options: ReviewOptions,
    urls: ImageUrls,
    *,
    progress: Progress = lambda ids: ids,
) -> ReviewCounts:
    """Write the tasks as JSON and, beside them, the labelling configuration; nothing where no mask can be shown.

    A task has one image and those of its masks that are of one share. The doubtful tasks come in the order of their
    most doubtful mask; the random ones, in random order, are spread evenly among them, so that what was judged when a
    person stops early still holds a random share. ``progress`` passes the ids of the batch's jobs on, while they are
    read. Images of parts that are members of tars are written to the folder ``NAME-images`` beside ``NAME.json``.

    Raises as :func:`~maskscore.review.mask_sampling.sample_masks`, :func:`~maskscore.export.read_jobs`,
    :meth:`~maskscore.export.Parts.selected`, :meth:`ImageUrls.url_of` and :func:`~maskscore.storage.output_file` do.
    """
    configuration = check_review_output(output, options.classes, named=True)
    read = ExportCounts()
    selection = Selection(head=options.head)
    asked = {"doubtful": options.doubtful, "random": options.random, "seed": options.seed}
    if isinstance(batch, Parts):
        with batch.selected(selection, read, segmentations=False) as selected:
            sample = sample_parts(selected, options.measure, **asked)
    else:
        jobs = read_jobs(client, progress(batch.job_ids()), selection, read, segmentations=False)
        sample = sample_masks((mask for job in jobs for mask in job.masks), options.measure, **asked)
    counts = ReviewCounts(scored=sample.scored, without_result=dict(read.without_result))
    counts.furthest = sample.doubtful[-1].doubt if sample.doubtful else None
    chosen = _in_order(sample, options.seed)
    if isinstance(batch, Parts):
        tar_images = TarImages(urls, output.with_name(f"{output.stem}-images"))
        tasks = _tasks_of_parts(batch, chosen, options.measure, urls, tar_images, counts)
    else:
        tasks = _tasks(client, chosen, options.measure, urls, counts)
    first = next(tasks, None)
    if first is None:
        return counts
    with output_file(output) as part, part.open("w", encoding="utf-8") as file:
        file.write("[\n" + first)
        for task in tasks:
            file.write(",\n" + task)
        file.write("\n]\n")
    write_text(configuration, labelling_configuration(options.classes))
    return counts


def _in_order(sample: MaskSample, seed: int) -> list[list[SampledMask]]:
    """Return the masks of each task, the tasks in their order."""
    doubtful, random = _by_image(sample.doubtful), _by_image(sample.random)
    random.sort(key=lambda masks: sampling_key(seed, masks[0].mask.image))
    placed = [
        ((number + 0.5) / len(tasks), masks) for tasks in (doubtful, random) for number, masks in enumerate(tasks)
    ]
    return [masks for _, masks in sorted(placed, key=lambda item: item[0])]


def _by_image(masks: Iterable[SampledMask]) -> list[list[SampledMask]]:
    # A shard has many images; an image may be that of several jobs.
    images: dict[tuple[str, str], list[SampledMask]] = {}
    for sampled in masks:
        images.setdefault((sampled.mask.job_id, sampled.mask.image), []).append(sampled)
    return list(images.values())


def _tasks(
    client: Client,
    chosen: Sequence[Sequence[SampledMask]],
    measure: DoubtMeasure,
    urls: ImageUrls,
    counts: ReviewCounts,
) -> Iterator[str]:
    waiting = iter(chosen)
    ids = [masks[0].mask.job_id for masks in chosen]
    for job in read_jobs(client, ids, Selection(), ExportCounts()):
        for masks in waiting:
            if masks[0].mask.job_id == job.masks[0].job_id:
                task = _task(job, masks, measure, urls, counts)
                if task is not None:
                    yield json.dumps(task, ensure_ascii=False)
                break
            _gone(masks, counts)
    for masks in waiting:
        _gone(masks, counts)


def _tasks_of_parts(
    parts: Parts,
    chosen: Sequence[Sequence[SampledMask]],
    measure: DoubtMeasure,
    urls: ImageUrls,
    tar_images: TarImages,
    counts: ReviewCounts,
) -> Iterator[str]:
    found = read_images(parts, (sampled.mask for masks in chosen for sampled in masks))
    for masks in chosen:
        image = found.get((masks[0].mask.job_id, masks[0].mask.image))
        if image is None:
            _gone(masks, counts)
            continue
        job, row = image
        task = _task(job, masks, measure, urls, counts, file_of=partial(tar_images.file_of, row=row))
        if task is not None:
            yield json.dumps(task, ensure_ascii=False)


def _gone(masks: Sequence[SampledMask], counts: ReviewCounts) -> None:
    counts.leave_out(len(masks), f"The result of job {masks[0].mask.job_id} has gone meanwhile.")


def _task(
    job: ExportedJob,
    masks: Sequence[SampledMask],
    measure: DoubtMeasure,
    urls: ImageUrls,
    counts: ReviewCounts,
    *,
    file_of: Callable[[ImageInfo], ImageInfo] = lambda image: image,
) -> Any:
    try:
        shown = file_of(job.image)
        url = urls.url_of(shown)
    except ImageUnavailable as error:
        counts.leave_out(len(masks), str(error))
        return None
    found = {(mask.mask_index, mask.part): mask for mask in job.masks}
    shapes = []
    for sampled in masks:
        mask = found.get((sampled.mask.mask_index, sampled.mask.part))
        try:
            if mask is None or mask.segmentation is None:
                raise ValueError("its segmentation cannot be read any more")
            shapes.append((sampled, shape_of(job.image, mask)))
        except ValueError as error:
            counts.leave_out(1, f"The mask {sampled.mask.mask_id!r:.60} of {job.image.uri}: {error}.")
    if not shapes:
        return None
    counts.tasks += 1
    counts.add_image(shown.uri)
    counts.random += sum(sampled.random for sampled, _ in shapes)
    counts.doubtful += sum(not sampled.random for sampled, _ in shapes)
    return task_of(job.image, url, shapes, measure)
