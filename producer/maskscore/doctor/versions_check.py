"""Compares the installed releases with the requirements in maskscore's own metadata."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata

from packaging.requirements import Requirement

from maskscore.doctor.finding import Cause, Finding, failed, ok

__all__ = ["examine_producer_versions", "examine_worker_versions", "installed_versions", "required", "unmet"]

NAME = "versions"
_SHOWN = ("maskscore", "celery", "redis", "boto3")
_TITLES = {"redis": "redis-py"}
_SHOWN_OF_WORKER = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")


def required(extra: str = "") -> list[Requirement]:
    """Return what maskscore requires here; with an ``extra``, only what that adds."""
    stated = [Requirement(line) for line in metadata.requires("maskscore") or ()]
    return [requirement for requirement in stated if _applies(requirement, extra)]


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return not extra
    return requirement.marker.evaluate({"extra": extra}) and not (extra and requirement.marker.evaluate({"extra": ""}))


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the version of each distribution that is installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def unmet(
    requirements: Iterable[Requirement], installed: Mapping[str, str]
) -> Iterator[tuple[Requirement, str | None]]:
    """Yield each requirement that is not met, with the installed version that does not meet it."""
    for requirement in requirements:
        version = installed.get(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield requirement, version


def examine_producer_versions() -> Iterator[Finding]:
    """Say which releases a producer runs on."""
    yield from _examine(NAME, "", [f"Python {platform.python_version()}"], _SHOWN, "maskscore")


def examine_worker_versions() -> Iterator[Finding]:
    """Say which releases a worker runs on beside those."""
    yield from _examine("worker versions", "worker", [], _SHOWN_OF_WORKER, "maskscore[worker]")


def _examine(name: str, extra: str, shown: list[str], names: tuple[str, ...], to_install: str) -> Iterator[Finding]:
    requirements = required(extra)
    installed = installed_versions([*names, *(requirement.name for requirement in requirements)])
    sound = True
    for requirement, version in unmet(requirements, installed):
        sound = False
        here = f"{requirement.name} {version} is installed" if version else f"{requirement.name} is not installed"
        yield failed(
            name,
            Cause.DEPLOYMENT,
            f"{here}; maskscore needs {requirement.name}{requirement.specifier}.",
            f'pip install --upgrade "{to_install}"',
        )
    if sound:
        yield ok(
            name,
            ", ".join(
                [*shown, *(f"{_TITLES.get(each, each)} {installed[each]}" for each in names if each in installed)]
            )
            + ".",
        )
