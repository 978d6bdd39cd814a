"""Judgements are joined to the scored masks of batches, by image and mask: the table that heads are fitted to."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, get_args

import numpy as np

from maskscore.errors import InvalidDocumentError
from maskscore.heads import score_value
from maskscore.review import Judgement
from maskscore.schema import Component, JobResult, ScoreName
from maskscore.storage import object_path
from maskscore.text import counted

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["JudgedMasks", "Origin", "Problem", "join", "judged_image_test"]

_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class Origin:
    """How masks were scored: what a head holds for."""

    weights_digest: str
    views: str
    method: str
    prompts_digest: str


@dataclass(slots=True)
class Problem:
    """Judgements of one kind that cannot be used: how many, and some by name."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)

    def __str__(self) -> str:
        more = self.count - len(self.examples)
        return "; ".join(self.examples) + (f"; and {more:,} more" if more else "")


@dataclass(slots=True)
class JudgedMasks:
    """N judged and scored masks, in the order of the results.

    ``decisions`` are class names, or ``keep`` and ``drop``. ``scores`` has an array of N numbers for each score that
    every mask has; ``features`` is an array of shape ``(N, D)``, or ``None`` where a mask has no embedding: those of
    ``jobs_without_features`` have none, which counts them by their job. ``problems`` says by their kind which
    judgements are left out.
    """

    origin: Origin
    images: list[str]
    decisions: list[str]
    random: npt.NDArray[np.bool_]
    scores: dict[ScoreName, npt.NDArray[np.float64]]
    features: npt.NDArray[np.float64] | None
    jobs_without_features: Counter[str]
    problems: dict[str, Problem]

    def left_out(self) -> Iterator[str]:
        """Yield, for each kind of problem, how many judgements are left out, and why."""
        return _sentences(self.problems)


class _Row(NamedTuple):
    image: str
    decision: str
    random: bool
    component: Component
    job_id: str


def join(
    judgements: Collection[Judgement],
    results: Iterable[JobResult],
    *,
    views_of: Callable[[JobResult], str | None],
    by_class: bool,
    drop_classes: Collection[str],
    features_only: bool,
) -> JudgedMasks:
    """Join judgements to the masks of results.

    An image is named by its URI, or by the end of its path, such as a file's name. A mask that several results have is
    taken from the first. Without ``by_class`` a class counts as dropped if it is one of ``drop_classes``.
    ``features_only``: the masks may be of several prompt sets and methods.

    Raises :class:`~maskscore.errors.InvalidDocumentError` where no judged mask has a score, masks were scored in
    several ways, and judgements have no classes, or nothing but classes.
    """
    problems: dict[str, Problem] = defaultdict(Problem)
    wanted = _decisions(judgements, by_class, drop_classes, problems)
    names = {image for image, _ in wanted}
    uris_of: dict[str, set[str]] = defaultdict(set)
    rows: list[_Row] = []
    taken: dict[tuple[str, str, int | None], str] = {}
    contradicted: set[tuple[str, str, int | None]] = set()
    seen: set[tuple[str, str, int | None]] = set()
    used: set[tuple[str, str, int | None]] = set()
    in_parts: set[tuple[str, str]] = set()
    origins: dict[Origin, str] = {}
    for result in results:
        if result.image is None:
            continue
        uri = result.image.uri
        for name in sorted(_names_of(uri) & names):
            uris_of[name].add(uri)
            parts = Counter(component.id for component in result.components)
            before = len(rows)
            for component in result.components:
                one = wanted.get((name, component.id), {})
                part = component.part if component.part in one else None
                if part not in one:
                    continue
                if part is None and component.part is not None and parts[component.id] > 1:
                    in_parts.add((name, component.id))
                    continue
                used.add((name, component.id, part))
                key = (uri, component.id, component.part)
                decision, random = one[part]
                if taken.setdefault(key, decision) != decision and key not in contradicted:
                    # The same image under two names.
                    contradicted.add(key)
                    problems["contradictory"].add(f"mask {component.id} of {name}: {decision} and {taken[key]}")
                if key in seen:
                    continue
                seen.add(key)
                if component.skipped is not None:
                    problems["not scored"].add(f"mask {component.id} of {name} ({component.skipped.code})")
                elif not _finite(component):
                    problems["with scores or a feature that are not numbers"].add(f"mask {component.id} of {name}")
                else:
                    rows.append(_Row(uri, decision, random, component, result.job_id))
            if len(rows) > before:
                origins.setdefault(_origin(result, views_of(result), features_only), result.job_id)
    _check_names(uris_of)
    for (name, mask_id), one in wanted.items():
        for part in one:
            if (name, mask_id, part) not in used:
                label = f"mask {mask_id}" if part is None else f"part {part} of mask {mask_id}"
                if part is None and (name, mask_id) in in_parts:
                    kind = "that do not say which part of a mask"
                else:
                    what = "masks" if name in uris_of else "images"
                    kind = f"of {what} that were not scored here"
                problems[kind].add(f"{label} of {name}")
    rows = [row for row in rows if (row.image, row.component.id, row.component.part) not in contradicted]
    if not rows:
        why = "".join(f" Left out: {sentence}." for sentence in _sentences(problems))
        raise InvalidDocumentError(f"None of {counted(len(judgements), 'judgement')} is of a scored mask.{why}")
    if len(origins) > 1:
        ways = "; ".join(
            f"job {job}: weights {one.weights_digest[:19]}, view {one.views}, method {one.method}, prompts "
            f"{one.prompts_digest[:19]}"
            for one, job in list(origins.items())[:_EXAMPLES]
        )
        raise InvalidDocumentError(
            f"The judged masks were scored in {len(origins)} ways ({ways}). A head holds for one; name batches that "
            "were scored alike, or score masks again by `rescore`."
        )
    return _table(rows, next(iter(origins)), dict(problems))


def judged_image_test(judgements: Iterable[Judgement]) -> Callable[[str], bool]:
    """Return what says by an image's URI whether a judgement may be of it."""
    names = {judgement.image for judgement in judgements}
    return lambda uri: not names.isdisjoint(_names_of(uri))


def _sentences(problems: Mapping[str, Problem]) -> Iterator[str]:
    for kind, problem in problems.items():
        if kind == "contradictory":
            yield f"{counted(problem.count, 'mask')} with contradictory judgements: {problem}"
        else:
            how = {"not scored": "of masks without a score", "neither keep nor drop": "without keep or drop"}
            yield f"{counted(problem.count, 'judgement')} {how.get(kind, kind)}: {problem}"


def _decisions(
    judgements: Collection[Judgement], by_class: bool, drop_classes: Collection[str], problems: dict[str, Problem]
) -> dict[tuple[str, str], dict[int | None, tuple[str, bool]]]:
    if not judgements:
        raise InvalidDocumentError("The files have no judgement: no mask has `keep`, `drop` or a class.")
    if by_class and not any(one.class_name for one in judgements):
        raise InvalidDocumentError("The judgements have no classes: leave out --by-class.")
    if not by_class and not drop_classes and all(one.keep is None for one in judgements):
        raise InvalidDocumentError(
            "The judgements are classes: name those that are to be dropped by --drop-class, or fit --by-class."
        )
    classes = {one.class_name for one in judgements if one.class_name is not None}
    unknown = set(drop_classes) - classes
    if unknown:
        listed = f"There are {', '.join(sorted(classes))[:300]}." if classes else "There are no classes."
        raise InvalidDocumentError(f"--drop-class: no mask is judged {', '.join(sorted(unknown))[:300]}. {listed}")
    decided: dict[tuple[str, str], dict[int | None, set[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(set))
    for one in judgements:
        if by_class:
            decision = one.class_name
        elif one.keep is not None:
            decision = "keep" if one.keep else "drop"
        elif one.class_name is not None and drop_classes:
            decision = "drop" if one.class_name in drop_classes else "keep"
        else:
            decision = None
        if decision is None:
            problems["without a class" if by_class else "neither keep nor drop"].add(
                f"mask {one.mask_id} of {one.image}"
            )
        else:
            decided[one.image, one.mask_id][one.part].add((decision, one.random))
    wanted: dict[tuple[str, str], dict[int | None, tuple[str, bool]]] = defaultdict(dict)
    for (image, mask_id), parts in decided.items():
        for part, said in parts.items():
            decisions = {decision for decision, _ in said}
            if len(decisions) > 1:
                problems["contradictory"].add(f"mask {mask_id} of {image}: {' and '.join(sorted(decisions))}")
            else:
                wanted[image, mask_id][part] = decisions.pop(), any(random for _, random in said)
    return dict(wanted)


def _names_of(uri: str) -> set[str]:
    names = {uri}
    pieces = object_path(uri).split("/")
    names |= {"/".join(pieces[start:]) for start in range(len(pieces))}
    return names | {f"/{'/'.join(pieces)}"}


def _check_names(uris_of: dict[str, set[str]]) -> None:
    several = [name for name, uris in uris_of.items() if len(uris) > 1]
    if several:
        uris = sorted(uris_of[several[0]])
        raise InvalidDocumentError(
            f"The judgements name {counted(len(several), 'image')} that could be several: {several[0]!r:.200} is "
            f"{uris[0]} or {uris[1]}. Name images by their URIs."
        )


def _origin(result: JobResult, views: str | None, features_only: bool) -> Origin:
    model = result.model.weights_digest if result.model else ""
    if features_only:
        return Origin(model, views or "", "", "")
    return Origin(model, views or "", result.method or "", result.prompts.digest if result.prompts else "")


def _finite(component: Component) -> bool:
    values = [value for name in get_args(ScoreName) if (value := score_value(name, component)) is not None]
    feature = component.embedding_vector()
    return all(map(math.isfinite, values)) and (feature is None or bool(np.isfinite(feature).all()))


def _table(rows: list[_Row], origin: Origin, problems: dict[str, Problem]) -> JudgedMasks:
    scores: dict[ScoreName, npt.NDArray[np.float64]] = {}
    for name in get_args(ScoreName):
        values = [value for row in rows if (value := score_value(name, row.component)) is not None]
        if len(values) == len(rows):
            scores[name] = np.array(values)
    vectors = [vector for row in rows if (vector := row.component.embedding_vector()) is not None]
    whole = len(vectors) == len(rows) and len({len(vector) for vector in vectors}) == 1
    return JudgedMasks(
        origin=origin,
        images=[row.image for row in rows],
        decisions=[row.decision for row in rows],
        random=np.array([row.random for row in rows]),
        scores=scores,
        features=np.array(vectors, dtype=np.float64) if whole else None,
        jobs_without_features=Counter(row.job_id for row in rows if row.component.embedding is None),
        problems=problems,
    )
