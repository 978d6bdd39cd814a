"""Reads the results and segmentations of jobs page by page, and yields the selected masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool

from maskscore.client import Batch, Client, read_masks_document, scored_masks, views_text_of
from maskscore.errors import FailureCode, HeadMismatch, InvalidDocumentError, JobError, JobNotFound, ResultUnavailable
from maskscore.export.export_counts import ExportCounts
from maskscore.export.exported_mask import ExportedMask, exported_mask
from maskscore.export.file_metadata import FileMetadata, image_id_of, read_file_metadata
from maskscore.export.labels import LABEL_SOURCES
from maskscore.export.selection import Selection
from maskscore.formats import MasksDocumentError
from maskscore.ledger import JobRecord
from maskscore.parts import CocoSegmentation
from maskscore.schema import Component, ImageInfo, Job, JobResult, JobState, MasksRef
from maskscore.storage import load_result

__all__ = ["ExportedJob", "read_jobs"]

# So many results and masks are fetched from the object store at once.
_THREADS = 8
_PAGE = 32
_CTRL_C_SEEN_S = 0.5
# Named in a message, and no more are held.
_MOST_FIELDS = 30


@dataclass(frozen=True, slots=True)
class ExportedJob:
    """The masks of a job that are kept, and what is known of its image."""

    image: ImageInfo
    image_id: int | None
    file_metadata: FileMetadata
    masks: list[ExportedMask] = field(default_factory=list)


def read_jobs(
    client: Client,
    jobs: Batch | Iterable[str],
    selection: Selection,
    counts: ExportCounts,
    *,
    segmentations: bool = True,
    segmentation_required: bool = False,
    with_file_metadata: bool = False,
) -> Iterator[ExportedJob]:
    """Yield the jobs that have masks to export, in the order of the ids; add to ``counts`` on the way.

    ``segmentations`` are read only for jobs with kept masks; ``segmentation_required`` leaves out masks without one.
    ``with_file_metadata`` reads what masks objects say of their images. Raises
    :class:`~maskscore.errors.HeadMismatch` for a result that the selection's head does not hold for, or that no head
    has decided on where decisions are asked for (by class, where its classes are the labels),
    :class:`~maskscore.errors.InvalidDocumentError` in the end where no mask has a field that is asked for, or the file
    of classes lacks a mask's prompt or class,
    :class:`~maskscore.errors.ServiceUnavailable` when Redis does not answer, and
    :class:`~maskscore.errors.JobError` (transient) when the object store does not.
    """
    read = partial(
        _read,
        client,
        selection,
        segmentations=segmentations,
        segmentation_required=segmentation_required,
        with_file_metadata=with_file_metadata,
    )
    ids = jobs.job_ids() if isinstance(jobs, Batch) else iter(jobs)
    # Its threads are daemons, so that Ctrl-C does not wait for their requests.
    with ThreadPool(_THREADS) as threads:
        while page := list(islice(ids, _PAGE)):
            reading = threads.starmap_async(read, zip(page, client.records(page), strict=True), chunksize=1)
            # CPython can miss a Ctrl-C that comes while the main thread goes to sleep without a time limit.
            while not reading.ready():
                reading.wait(_CTRL_C_SEEN_S)
            for job, own in reading.get():
                _add(counts, own)
                if job is not None and job.masks:
                    yield job
    if counts.masks:
        selection.check_fields(counts.with_field, counts.known_fields)
    if selection.labelling is not None:
        counts.unused_texts = selection.labelling.check_texts(counts.texts)
        counts.text_noun = LABEL_SOURCES[selection.labelling.source].noun


def _read(
    client: Client,
    selection: Selection,
    job_id: str,
    record: JobRecord | None,
    *,
    segmentations: bool,
    segmentation_required: bool,
    with_file_metadata: bool,
) -> tuple[ExportedJob | None, ExportCounts]:
    counts = ExportCounts(jobs=1)
    result, code = _result(client, record)
    if result is None or result.image is None:
        counts.without_result[code] += 1
        return None, counts
    image = result.image
    if selection.head is not None:
        result = selection.head.of_result(result, views=views_text_of(client, result))
    elif selection.needs_decisions and result.head is None and not result.no_mask_scored and result.components:
        raise HeadMismatch(
            f"The masks of job {result.job_id} have no p_keep: they were scored without a head. Give one with --head."
        )
    from_head = selection.labelling is not None and selection.labelling.from_head and result.head is not None
    if from_head and any(one.skipped is None and one.head_class is None for one in result.components):
        raise HeadMismatch(
            f"The masks of job {result.job_id} have no class, because their head does not tell classes apart. Give one "
            "that does with --head: `maskscore fit --by-class`."
        )
    counts.masks = len(result.components)
    for component in result.components:
        if len(counts.known_fields) < _MOST_FIELDS:
            counts.known_fields.update(component.upstream)
        counts.with_field.update(name for name in selection.upstream_fields if name in component.upstream)
    kept = []
    for component in result.components:
        reason = selection.refused_by(component)
        if reason is None:
            reason = _not_labelled(selection, component, counts)
        if reason is None:
            kept.append(component)
        else:
            counts.filtered[reason] += 1
    if not kept:
        return None, counts
    counts.ranked.update(dict.fromkeys(selection.ranking.weights, 0))
    job, document, segment = _segmentation(client, job_id, result) if segmentations else (None, None, _none)
    masks = []
    for component in kept:
        mask = _exported(selection, result, image, component, segment, counts)
        if mask.segmentation is not None or not segmentation_required:
            masks.append(mask)
        elif mask.skipped is not None:
            counts.filtered["skipped"] += 1
    file_metadata = read_file_metadata(job, document) if with_file_metadata and job is not None else FileMetadata()
    image_id = image_id_of(file_metadata, job, kept[0].upstream)
    return ExportedJob(image, image_id, file_metadata, masks), counts


def _not_labelled(selection: Selection, component: Component, counts: ExportCounts) -> str | None:
    """Return the name of the filter that leaves out a mask without a label; a skipped mask needs none."""
    labelling = selection.labelling
    if labelling is None or component.skipped is not None:
        return None
    text = labelling.text_of(component)
    if text is None:
        return "min-score" if labelling.min_score is not None else "label-from"
    counts.texts.add(text)
    return "classes" if labelling.label_of(text) is None else None


def _result(client: Client, record: JobRecord | None) -> tuple[JobResult | None, str]:
    if record is None:
        return None, FailureCode.RESULT_EXPIRED
    if not record.status.state.ended:
        return None, "not_ended"
    try:
        result = load_result(record, client.objects)
    except ResultUnavailable as error:
        if isinstance(error.__cause__, JobError) and error.__cause__.input_may_be_fine:
            raise error.__cause__ from error
        return None, error.code
    if result.shard is not None:
        raise InvalidDocumentError(
            f"Job {result.job_id} is a shard, whose masks are in its parts in {result.shard.output_uri}. Export these, "
            "or the shard or its batch, alone."
        )
    if result.state is not JobState.SUCCEEDED:
        return None, result.error.code if result.error else str(result.state)
    return result, ""


Segment = Callable[[Component], object]


def _none(component: Component) -> object:
    return None


def _segmentation(client: Client, job_id: str, result: JobResult) -> tuple[Job | None, bytes | None, Segment]:
    """Return the job, the object of its masks, and what finds a component's segmentation."""
    try:
        job = client.job(job_id)
        document = read_masks_document(job, client.objects)
        masks = scored_masks(job, document, result.image)
    except (JobNotFound, JobError, MasksDocumentError) as error:
        if isinstance(error, JobError) and error.input_may_be_fine:
            raise
        return None, None, partial(_unreadable, str(error))
    if result.image is None:
        return job, document, _none
    checked = isinstance(job.masks, MasksRef) and job.masks.etag is None
    segmenter = CocoSegmentation(masks, height=result.image.height, width=result.image.width, checked=checked)
    return job, document, segmenter.segmentation


def _unreadable(why: str, component: Component) -> object:
    raise ValueError(why)


def _exported(
    selection: Selection,
    result: JobResult,
    image: ImageInfo,
    component: Component,
    segment: Segment,
    counts: ExportCounts,
) -> ExportedMask:
    segmentation = None
    # What could not be drawn has no box, and its segmentation, if it is one, says nothing.
    if component.box is not None:
        try:
            segmentation = segment(component)
        except ValueError as error:
            counts.unwritable += 1
            counts.example = counts.example or f"job {result.job_id}: {error}"
    pixels = image.width * image.height
    factors = selection.ranking.values(component, pixels=pixels)
    score = None if component.skipped is not None else selection.ranking.score_of(factors)
    counts.ranked.update(factors.keys())
    text = None
    if selection.labelling is not None and component.skipped is None:
        text = selection.labelling.text_of(component)
    label = None if selection.labelling is None or text is None else selection.labelling.label_of(text)
    return exported_mask(result, component, rank_score=score, segmentation=segmentation, label=label)


def _add(counts: ExportCounts, own: ExportCounts) -> None:
    counts.jobs += own.jobs
    counts.masks += own.masks
    counts.unwritable += own.unwritable
    counts.example = counts.example or own.example
    counts.filtered.update(own.filtered)
    counts.ranked.update(own.ranked)
    counts.with_field.update(own.with_field)
    if len(counts.known_fields) < _MOST_FIELDS:
        counts.known_fields |= own.known_fields
    counts.without_result.update(own.without_result)
    counts.texts |= own.texts
