"""Jobs and shards that score the masks of earlier ones again, with other prompts, thresholds, head, model and so on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields

from maskscore.errors import InvalidDocumentError
from maskscore.results import retry_number
from maskscore.schema import (
    Head,
    Job,
    Method,
    PromptSet,
    ScoringOptions,
    Shard,
    SigmoidThresholds,
    Thresholds,
    thresholds_by_method,
)

__all__ = ["Rescoring", "ScoringChanges"]


@dataclass(frozen=True, slots=True)
class ScoringChanges:
    """The options to change; ``None`` stays as it was in the job. Only the model changes the image features."""

    prompts: str | PromptSet | None = None
    thresholds: Thresholds | SigmoidThresholds | Mapping[str, float] | None = None
    method: Method | None = None
    top_k: int | None = None
    head: str | Head | None = None
    model: str | None = None
    embeddings: bool | None = None

    def applied_to(self, options: ScoringOptions) -> ScoringOptions:
        """Return the options with the changes.

        Of ``thresholds`` given by name the others stay; those of a method that is left behind do not. Raises
        :class:`pydantic.ValidationError` for bad values.
        """
        changed = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        kept = dict(options)
        if self.method is not None and (self.method == "sigmoid") != (options.method == "sigmoid"):
            del kept["thresholds"], kept["sigmoid_thresholds"]
        if isinstance(self.thresholds, Mapping):
            del changed["thresholds"]
            for field, named in thresholds_by_method(self.thresholds).items():
                changed[field] = {**(kept[field].model_dump() if field in kept else {}), **named}
        elif isinstance(self.thresholds, SigmoidThresholds):
            changed["sigmoid_thresholds"] = changed.pop("thresholds")
        return ScoringOptions.model_validate({**kept, **changed})


_NAMES = [field.name for field in fields(ScoringChanges)]


class Rescoring:
    """Makes jobs of earlier ones.

    ``source_batches`` are the batches that those were in, and ``source_outputs`` where the parts of shards are, in the
    order met.
    """

    def __init__(self, changes: ScoringChanges, result_uri: str | None) -> None:
        self._changes = changes
        self._result_uri = result_uri
        self.source_batches: dict[str, None] = {}
        self.source_outputs: dict[str, None] = {}

    def jobs(self, earlier: Iterable[Job | Shard]) -> Iterator[Job | Shard]:
        """Yield the jobs and shards that score the earlier ones' masks again; raises as :func:`rescored` does."""
        for job in earlier:
            if job.batch_id is not None:
                self.source_batches[job.batch_id] = None
            if isinstance(job, Shard) and retry_number(job.name) is not None:
                # Its images are those of earlier shards, which score them again.
                continue
            if isinstance(job, Shard):
                self.source_outputs[job.output_uri] = None
                yield rescored_shard(job, self._changes, output_uri=self._result_uri)
            else:
                yield rescored(job, self._changes, result_uri=self._result_uri)


def rescored(job: Job, changes: ScoringChanges, *, result_uri: str | None = None) -> Job:
    """Return the job that scores an earlier one's masks again.

    Its id is made of the earlier one's and of what is asked, so that the same question is the same job. Its result
    goes where the earlier one's went, or to ``result_uri``. Raises
    :class:`~maskscore.errors.InvalidDocumentError` where it would overwrite the earlier one's, and
    :class:`pydantic.ValidationError` for bad values.
    """
    result_uri = result_uri or job.result_uri
    if result_uri is not None and result_uri == job.result_uri and not result_uri.endswith("/"):
        raise InvalidDocumentError(
            f"Job {job.job_id} keeps its result in {result_uri}, where the new one would overwrite it. Give another "
            "`result_uri`, such as s3://bucket/prefix/."
        )
    again = job.model_copy(
        update={
            "batch_id": None,
            "options": changes.applied_to(job.options),
            "result_uri": result_uri,
        }
    )
    return again.model_copy(update={"job_id": _id(again.model_dump_json(include={"job_id", "options", "result_uri"}))})


def rescored_shard(shard: Shard, changes: ScoringChanges, *, output_uri: str | None) -> Shard:
    """Return the shard that scores an earlier one's images again, into parts of the same names below ``output_uri``.

    Raises :class:`~maskscore.errors.InvalidDocumentError` without a place, for one that does not end with a slash, or
    where the earlier one's parts are, and :class:`pydantic.ValidationError` for bad values.
    """
    if output_uri is None or not output_uri.endswith("/") or output_uri == shard.output_uri:
        raise InvalidDocumentError(
            f"The parts of shard {shard.name} are in {shard.output_uri}. Give the new ones a place of their own: "
            "`result_uri` (--result-uri), such as s3://bucket/run-2/."
        )
    changed = {"batch_id": None, "options": changes.applied_to(shard.options), "output_uri": output_uri}
    again = Shard.model_validate({**dict(shard), **changed})
    return again.model_copy(
        update={"shard_id": _id(again.model_dump_json(include={"shard_id", "options", "output_uri"}))}
    )


def _id(about: str) -> str:
    return f"rescore-{hashlib.sha256(about.encode()).hexdigest()[:40]}"
