"""``eval --scores``: the results of batches, jobs and parts that are measured, and the prompts of their classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from maskscore.cli.batch_or_job import PartsNamed, batches_and_jobs, job_ids_of, parts_named
from maskscore.cli.progress import ShownTogether
from maskscore.client import Client, scored_results, views_text_of
from maskscore.errors import InvalidDocumentError
from maskscore.prompts import prompt_sets
from maskscore.results import image_results
from maskscore.schema import PromptSet, PromptSetIdentity

if TYPE_CHECKING:
    from maskscore.evaluation import ImagesByName, ScoredImage

__all__ = ["is_given", "prompt_set_of", "refuse_scoring_options", "scored_images"]

_FOR_SCORING: Final = {
    **{"treatments": "--treatment", "frames": "--frame", "views": "--view", "alpha": "--alpha", "blur": "--blur"},
    **{"context": "--context", "method": "--method", "models": "--model", "wait_for_workers": "--wait-for-workers"},
    **{"prices": "--price-per-hour", "seed": "--seed", "timeout": "--timeout"},
}
"""Options that say how masks are to be scored or sampled, by their parameters' names."""


def is_given(parameter: str) -> bool:
    """Say whether the command line has a value for a parameter of the command."""
    return click.get_current_context().get_parameter_source(parameter) is not ParameterSource.DEFAULT


def refuse_scoring_options() -> None:
    """Raise a usage error where the command line says how masks are to be scored, which --scores are already."""
    given = [option for parameter, option in _FOR_SCORING.items() if is_given(parameter)]
    if given:
        raise click.UsageError(
            f"{given[0]} goes with --images: --scores are there already, and were made as they say. Score the images "
            "the other way, and give both by --scores."
        )


def scored_images(
    client: Client, names: Iterable[str], images: ImagesByName, shown: ShownTogether, *, embeddings: bool
) -> dict[str, Iterator[ScoredImage]]:
    """Return the results that each name means; those of parts are read for labelled images alone."""
    parts = parts_named(client, names)
    return {
        name: _of_parts(parts[name], images, shown, embeddings=embeddings)
        if name in parts
        else _of_jobs(client, name, shown)
        for name in names
    }


def _of_parts(
    parts: PartsNamed, images: ImagesByName, shown: ShownTogether, *, embeddings: bool
) -> Iterator[ScoredImage]:
    from maskscore.evaluation import ScoredImage

    _say_without_result("shards", parts.codes)

    def is_labelled(uri: str | None) -> bool:
        return uri is not None and images.find(uri) is not None

    def listing(files: Iterable[tuple[str, Any]], total: int) -> Iterator[tuple[str, Any]]:
        return shown(files, total, "listing", "part")

    found = image_results(parts.place, wanted=is_labelled, listing=listing, embeddings=embeddings)
    labelled = (image for image in found if is_labelled(image.image))
    for image in shown(labelled, len(images), "reading", "image"):
        yield ScoredImage(image.image, image.result, image.result.views_text)


def _of_jobs(client: Client, name: str, shown: ShownTogether) -> Iterator[ScoredImage]:
    from maskscore.evaluation import ScoredImage

    without_result: Counter[str] = Counter()
    batches, job_ids = batches_and_jobs(client, [name])
    total = sum(map(len, batches)) + len(job_ids)
    results = scored_results(client, job_ids_of(client, [name]), without_result)
    for result in shown(results, total, "reading", "job"):
        yield ScoredImage(result.image.uri if result.image else None, result, views_text_of(client, result))
    _say_without_result("jobs", without_result)


def _say_without_result(what: str, codes: Counter[str]) -> None:
    if codes:
        listed = ", ".join(f"{code} {count:,}" for code, count in codes.items())
        click.echo(f"maskscore: {what} without a result: {listed}", err=True)


def prompt_set_of(
    sets: list[PromptSet], prompts_dir: Path | None, scored_with: PromptSetIdentity, *, named: bool
) -> PromptSet:
    """Return the set of this digest: of those that were named, else the one that is known by the name.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where there is none.
    """
    name = getattr(scored_with, "name", "")
    if not named:
        sets = [source.read() for source in prompt_sets(prompts_dir) if source.name == name]
    for prompt_set in sets:
        if prompt_set.digest == scored_with.digest:
            return prompt_set
    which = f"{name} ({scored_with.digest[:19]})" if name else scored_with.digest[:19]
    here = "what --prompts names is not this set" if named else "this set is not known here"
    raise InvalidDocumentError(
        f"The masks were scored with the prompt set {which}, and {here}. Give its name or its YAML file by --prompts."
    )
