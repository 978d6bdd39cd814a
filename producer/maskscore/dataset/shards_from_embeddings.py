"""Shards that score earlier parts again by their embeddings, without their images. Needs ``maskscore[export]``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from maskscore import results
from maskscore.errors import InvalidDocumentError
from maskscore.schema import PartsSource, ScoringOptions, Shard, View

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["shards_of_parts"]

_FILE: Final = re.compile(r"(?P<name>.+)-(?P<number>\d{5,})\.parquet")


def shards_of_parts(place: str | Path, output_uri: str, options: ScoringOptions) -> Iterator[Shard]:
    """Yield a shard for each shard whose parts are in a place; its own parts have the same names below ``output_uri``.

    Of ``options``, ``prompts``, ``method``, the thresholds, ``top_k`` and ``head`` count; the view and the model are
    those of the embeddings, which the new parts keep. A shard's id is made of what is asked, so that the same question
    is the same shard.

    Raises :class:`~maskscore.errors.InvalidDocumentError` for parts without embeddings, of which some are missing or
    of several documents, and where ``output_uri`` is their place; :class:`~maskscore.errors.ResultUnavailable` as
    :func:`maskscore.results.open` does; and :class:`pydantic.ValidationError` for another ``output_uri`` than
    ``s3://bucket/prefix/`` or ``file:///folder/``.
    """
    uri = place if isinstance(place, str) and "://" in place else Path(place).absolute().as_uri()
    uri = f"{uri.rstrip('/')}/"
    if uri == f"{output_uri.rstrip('/')}/":
        raise InvalidDocumentError(f"The parts are in {place}: give the new ones a place of their own.")
    found: dict[str, dict[int, pa.Schema]] = {}
    for path, schema in results.open_parts(place, "masks").schemas.items():
        named = _FILE.fullmatch(path.rpartition("/")[2])
        if named is None:
            raise InvalidDocumentError(f"{path} is not called as a part is, NAME-00000.parquet.")
        found.setdefault(named["name"], {})[int(named["number"])] = schema
    for name, schemas in found.items():
        abouts: list[dict[str, Any]] = [
            json.loads((schema.metadata or {}).get(b"maskscore", b"{}")) for schema in schemas.values()
        ]
        missing = next((number for number in range(max(schemas)) if number not in schemas), None)
        if missing is not None:
            raise InvalidDocumentError(f"Part {missing} of {name} is missing in {place}, and later ones are there.")
        if any("embedding" not in schema.names for schema in schemas.values()):
            raise InvalidDocumentError(
                f"The parts of {name} in {place} have no embeddings: it was not scored with --embeddings. Other "
                "prompts need its images again: `maskscore rescore` without --from-embeddings, or `maskscore run`."
            )
        if len({(about.get("shard"), about.get("digest")) for about in abouts}) > 1:
            raise InvalidDocumentError(
                f"The parts of {name} in {place} are of several documents: the shard was submitted again, and has not "
                "written all of its parts yet."
            )
        source = PartsSource(uri=uri, parts=len(schemas), etag=abouts[0].get("digest"))
        scoring: dict[str, Any] = next((about["scoring"] for about in abouts if "scoring" in about), {})
        document = {"source": source, "name": name, "output_uri": output_uri, "options": _options(options, scoring)}
        shard = Shard.model_validate(document)
        about = shard.model_dump_json(exclude={"shard_id"})
        yield shard.model_copy(update={"shard_id": f"rescore-{hashlib.sha256(about.encode()).hexdigest()[:40]}"})


def _options(options: ScoringOptions, scoring: dict[str, Any]) -> ScoringOptions:
    """Return the options with the views and the model that parts say they were scored with."""
    first, *others = [View.parse(text) for text in (scoring.get("views") or options.views_text).split("+")]
    own = first.model_dump() | {"average_with": others, "embeddings": True}
    return ScoringOptions.model_validate(dict(options) | own | {"model": (scoring.get("model") or {}).get("name")})
