"""What people decided about masks: read from an export of Label Studio, and from the file that a report's page saves.

Label Studio keeps the ``data`` of a task and the ids of its regions as they were imported, so a task of
:func:`maskscore.review.write_review` says in ``data.maskscore`` which mask each region is. The choice per region is a
result of the type ``choices`` with the region's id (https://labelstud.io/guide/task_format).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from maskscore.errors import InvalidDocumentError
from maskscore.schema import Document, explain

__all__ = [
    "CHOICE_OF_CLASS",
    "CHOICE_OF_KEEP",
    "DROP",
    "KEEP",
    "SAVED_KIND",
    "Judgement",
    "ReviewedImage",
    "ReviewedMask",
    "judgements_in",
    "read_judgements",
]

KEEP: Final = "keep"
DROP: Final = "drop"
CHOICE_OF_KEEP: Final = "keep"
"""Name of Label Studio's control in which a region is kept or dropped."""
CHOICE_OF_CLASS: Final = "class"
"""Name of Label Studio's control in which a region gets a class."""
SAVED_KIND: Final = "maskscore-judgements"
"""``kind`` of the file that a report's page saves."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person decided about one mask: ``keep``, or ``class_name``; the other one is ``None``.

    ``image`` is the image's URI, ``mask_id`` and ``part`` are those of the component, and ``job_id`` is the job that
    scored it. ``random`` says that the mask was drawn at random from all scored masks; others were chosen by their
    scores, or by the person.
    """

    image: str
    mask_id: str
    part: int | None = None
    keep: bool | None = None
    class_name: str | None = None
    random: bool = False
    job_id: str | None = None


class ReviewedMask(Document):
    """One region of a task: which mask it is, and why it was chosen."""

    mask_id: str
    part: int | None = None
    random: bool = Field(description="Drawn at random from all scored masks, and not for its doubt.")
    value: float | None = Field(None, description="The number that doubt is measured by.")
    doubt: float | None = Field(None, description="Distance of `value` from the threshold; the smaller, the earlier.")


class ReviewedImage(Document):
    """What a task says of itself in ``data.maskscore``; ``regions`` are by Label Studio's ids of the regions."""

    version: Literal[1] = 1
    job_id: str
    batch_id: str | None = None
    image: str
    regions: dict[str, ReviewedMask]


class _SavedJudgement(Document):
    job_id: str
    image: str
    mask_id: str
    part: int | None = None
    keep: bool | None = None
    class_name: str | None = Field(None, alias="class")

    @model_validator(mode="after")
    def _one_decision(self) -> _SavedJudgement:
        if (self.keep is None) == (self.class_name is None):
            raise ValueError("a judgement is `keep` or a `class`")
        return self


class _Saved(Document):
    kind: Literal["maskscore-judgements"]
    version: Literal[1]
    judgements: Annotated[list[_SavedJudgement], Field(fail_fast=True)]


def read_judgements(path: Path) -> Iterator[Judgement]:
    """Return the judgements of a file: Label Studio's JSON export of a review, or what ``report --judge`` saves.

    A region without a choice was not judged and is left out, as are annotations that were skipped. A task with several
    annotations gives each one's. A region that a person has drawn is a judgement of a mask with the region's id, which
    no result has. An export without any judgement yields nothing.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for a file that cannot be read or is neither of the two.
    """
    return judgements_in(_document(path), path)


def judgements_in(document: Any, path: Path) -> Iterator[Judgement]:
    """Yield the judgements of a parsed file, as :func:`read_judgements` does; ``path`` names it in errors."""
    if isinstance(document, dict) and document.get("kind") == SAVED_KIND:
        yield from _of_page(document, path)
        return
    tasks = [document] if isinstance(document, dict) else document
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise InvalidDocumentError(f"{path} {_NEITHER}")
    for number, task in enumerate(tasks):
        yield from _of_task(task, f"{path}: task {number}")


_NEITHER: Final = (
    "is neither an export of Label Studio nor a file of judgements that a report's page has saved. In Label Studio "
    "export the project of the review as JSON, not as JSON-MIN, CSV or another format."
)


def _document(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidDocumentError(f"{path} cannot be read: {error.strerror or error}.") from error
    try:
        return from_json(data)
    except ValueError as error:
        raise InvalidDocumentError(f"{path} is not JSON: {error}.") from error


def _of_page(document: dict[str, Any], path: Path) -> Iterator[Judgement]:
    try:
        saved = _Saved.model_validate(document)
    except ValidationError as error:
        raise InvalidDocumentError(f"{path} is not a file of judgements of this release: {explain(error)}.") from error
    for one in saved.judgements:
        yield Judgement(one.image, one.mask_id, one.part, keep=one.keep, class_name=one.class_name, job_id=one.job_id)


def _of_task(task: dict[str, Any], where: str) -> Iterator[Judgement]:
    data = task.get("data")
    if not isinstance(data, dict):
        raise InvalidDocumentError(f"{where} has no `data`: the file {_NEITHER}")
    if "maskscore" not in data:
        raise InvalidDocumentError(
            f"{where} has no `data.maskscore`, which says what its regions are. Only tasks that `maskscore review` has "
            "written can be read; export other annotations as COCO, CSV or Parquet."
        )
    try:
        reviewed = ReviewedImage.model_validate(data["maskscore"])
    except ValidationError as error:
        raise InvalidDocumentError(f"{where}: its `data.maskscore` does not fit: {explain(error)}.") from error
    annotations = task.get("annotations")
    if not isinstance(annotations, list):
        raise InvalidDocumentError(
            f"{where} has no `annotations`: these are the tasks before the review, or not Label Studio's JSON export."
        )
    for annotation in annotations:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            results = annotation.get("result")
            for result in results if isinstance(results, list) else []:
                if isinstance(result, dict) and result.get("type") == "choices":
                    yield _of_choice(result, reviewed, where)


def _of_choice(result: dict[str, Any], reviewed: ReviewedImage, where: str) -> Judgement:
    name, region = result.get("from_name"), str(result.get("id"))
    value = result.get("value")
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise InvalidDocumentError(f"{where}: the region {region!r:.60} has not one choice, but {choices!r:.200}.")
    mask = reviewed.regions.get(region)
    mask_id, part = (mask.mask_id, mask.part) if mask is not None else (region, None)
    random = mask is not None and mask.random
    choice = choices[0]
    if name == CHOICE_OF_CLASS:
        return Judgement(reviewed.image, mask_id, part, class_name=choice, random=random, job_id=reviewed.job_id)
    if name != CHOICE_OF_KEEP or choice not in (KEEP, DROP):
        raise InvalidDocumentError(
            f"{where}: the region {region!r:.60} has the choice {choice!r:.60} of a control {name!r:.60}; a review has "
            f"`{KEEP}` and `{DROP}` of the control `{CHOICE_OF_KEEP}`, or classes of the control `{CHOICE_OF_CLASS}`. "
            "Use the labelling configuration that `maskscore review` has written."
        )
    return Judgement(reviewed.image, mask_id, part, keep=choice == KEEP, random=random, job_id=reviewed.job_id)
