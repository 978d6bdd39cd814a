"""The Lua scripts of the folder `lua`, each with a ticket's text and `transition.lua` inside, ready to be called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

import redis

from maskscore.broker import TICKET

__all__ = ["Scripts"]

Argument = str | bytes | int | float


class Scripts:
    """``scripts("claim", job_id, ...)`` runs ``claim.lua`` and returns its answer.

    Parameters
    ----------
    client: a :class:`redis.Redis` that returns bytes.
    namespace, ttl_ms, last: what every script is given, ``last`` behind its own arguments.
    """

    def __init__(self, client: redis.Redis, *, namespace: str, ttl_ms: int, last: str = "{}") -> None:
        self._client = client
        self._namespace = namespace
        self._ttl_ms = ttl_ms
        self._last = last
        self._scripts: dict[str, Callable[..., Any]] = {}

    def __call__(self, name: str, *arguments: Argument, pipeline: Any = None) -> Any:
        """Run a script at once, or as part of a pipeline."""
        script = self._scripts.get(name) or self._scripts.setdefault(name, self._client.register_script(_text(name)))
        return script(keys=[self._namespace], args=[self._ttl_ms, *arguments, self._last], client=pipeline)

    def many(self, name: str, calls: Sequence[Sequence[Argument]], *, raise_on_error: bool = True) -> list[Any]:
        """Run a script once per list of arguments, in one round trip; return the answers.

        Raises the first error among them, or returns it in its place where ``raise_on_error`` is false.
        """
        with self._client.pipeline(transaction=False) as pipeline:
            for arguments in calls:
                self(name, *arguments, pipeline=pipeline)
            return list(pipeline.execute(raise_on_error=raise_on_error))


def _text(name: str) -> str:
    folder = resources.files(__package__) / "lua"
    # The first line, with its flags, must stay the first.
    flags, body = folder.joinpath(f"{name}.lua").read_text("utf-8").split("\n", 1)
    return "\n".join(
        [flags, f"local TICKET = [=[{TICKET}]=]", folder.joinpath("transition.lua").read_text("utf-8"), body]
    )
