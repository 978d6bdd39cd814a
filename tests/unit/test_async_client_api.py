"""The asynchronous client has each method of the synchronous one, with the same parameters."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from maskscore import AsyncBatch, AsyncClient, AsyncJobHandle, Batch, Client, JobHandle

# Under the name that `contextlib.aclosing` and other libraries' clients have for it.
RENAMED = {"close": "aclose"}
ASK_NOTHING = {"handle", "batch"}
PAIRS = [(Client, AsyncClient), (Batch, AsyncBatch), (JobHandle, AsyncJobHandle)]


def verbs(kind: type) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("kind", "twin"), PAIRS)
def test_every_verb_has_its_twin(kind: type, twin: type) -> None:
    assert verbs(kind)
    for name, function in verbs(kind).items():
        theirs = verbs(twin)[RENAMED.get(name, name)]
        assert parameters(theirs) == parameters(function), name
        waits = inspect.iscoroutinefunction(theirs) or inspect.isasyncgenfunction(theirs)
        assert waits == (name not in ASK_NOTHING), name
        assert inspect.isasyncgenfunction(theirs) == inspect.isgeneratorfunction(function), name


@pytest.mark.parametrize(("kind", "twin"), PAIRS)
def test_annotations_are_the_same_but_for_what_waits(kind: type, twin: type) -> None:
    def plain(annotation: str) -> str:
        for alternative in ("AsyncIterable[Job | Shard]", "AsyncIterable[str]"):
            annotation = annotation.replace(f" | {alternative}", "")
        return annotation.replace("Async", "")

    for name, function in verbs(kind).items():
        theirs = inspect.signature(verbs(twin)[RENAMED.get(name, name)])
        ours = inspect.signature(function)
        for parameter in ours.parameters.values():
            assert plain(str(theirs.parameters[parameter.name].annotation)) == str(parameter.annotation), name
        returned = plain(str(theirs.return_annotation)).replace("Generator[", "Iterator[")
        assert returned == str(ours.return_annotation).replace("Generator[", "Iterator["), name


def test_both_are_context_managers_and_iterate_alike() -> None:
    assert {"__enter__", "__exit__"} <= set(dir(Client))
    assert {"__aenter__", "__aexit__"} <= set(dir(AsyncClient))
    assert "__iter__" in vars(Batch)
    assert "__aiter__" in vars(AsyncBatch)
