"""What all documents of the contract share: strict fields, and the refusal to guess."""

from __future__ import annotations

import reprlib
import zlib
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from maskscore.errors import FailureCode, JobError

__all__ = ["MOST_LEVELS", "Document", "assembled", "deeper", "explain", "pack", "read_document", "unpack"]

MOST_LEVELS: Final = 100
"""How deep a mask's further fields may be nested: readers of JSON have a limit, and a result holds them deeper."""

MIB: Final = 1024 * 1024
_CONTAINERS: Final = (dict, list, tuple)
AnyModel = TypeVar("AnyModel", bound=BaseModel)
# zlib's documentation: https://zlib.net/zlib_tech.html, "maximum compression factor".
_LARGEST_RATIO: Final = 1032
# No model of the contract has as many; each unknown field is an error of its own, which takes a kilobyte to say.
_MOST_FIELDS: Final = 100


# A part of the format of what lies in Redis: it never changes.
_PRESET: Final = (
    b'"priority":"high""priority":"low""prompts":{"name":"","positive":[""],"negative":[""],"neutral":['
    b'"frame":"""method":"cosine""treatment":"raw_crop""treatment":"soft_mask""format":"file://https://'
    b'.png.webp.npz.masks.json"masks":[{"id":"0","segmentation":{"size":[1024,1024],"counts":""}},{"id":"1",'
    b'"predicted_iou":0.9,"stability_score":0.9}],'
    b'{"version":1,"job_id":"content-","batch_id":null,"image":{"uri":"s3://images/.jpg","etag":null,"version_id":null,'
    b'"orientation":"auto"},"masks":{"uri":"s3://masks/.json","etag":null,"image_id":null},"options":{'
    b'"prompts":"default","treatment":"original","alpha":0.4,"method":"softmax","thresholds":{"reject_neg_sum":0.5,'
    b'"strong_pos_sum":0.7,"strong_neg_sum":0.2,"accept_pos_sum":0.4},"min_area":1,"split_components":false,"top_k":0,'
    b'"embeddings":false},"priority":"normal","expires_in":null,"result_uri":null}'
)


class Document(BaseModel):
    """Base of the contract's models: unknown fields are an error, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and len(fields) > _MOST_FIELDS:
            raise ValueError(f"it has {len(fields):,} fields, and nearly all are unknown")
        return fields


AnyDocument = TypeVar("AnyDocument", bound=Document)


def assembled(model: type[AnyModel], given: dict[str, Any], extra: dict[str, Any] | None = None) -> AnyModel:
    """Return what ``model_construct`` gives, which looks at the declaration of each field; for models in millions.

    All of it is of the types that it should be, and a field that is not given is one whose default is ``None``.
    ``extra`` are the further fields of a model that allows them.
    """
    made = object.__new__(model)
    object.__setattr__(made, "__dict__", _without_values(model) | given)
    # Models that have the same fields share their names: as a set of each one's own, 728 bytes of a component.
    _put_fields_set(made, {*given, *extra} if extra else _shared_names(tuple(given)))
    _put_extra(made, extra)
    _put_private(made, None)
    return made


# Pydantic's slots, found once.
_put_fields_set, _put_extra, _put_private = (
    BaseModel.__dict__[f"__pydantic_{slot}__"].__set__ for slot in ("fields_set", "extra", "private")
)


@cache
def _shared_names(names: tuple[str, ...]) -> set[str]:
    return set(names)


@cache
def _without_values(model: type[BaseModel]) -> dict[str, Any]:
    return dict.fromkeys(model.model_fields)


def deeper(value: object, levels: int) -> bool:
    """Say whether lists and objects in a JSON value are nested more than so many levels deep."""
    if not isinstance(value, _CONTAINERS):
        return False
    if levels < 1:
        return True
    items = value.values() if isinstance(value, dict) else value
    return any(deeper(item, levels - 1) for item in items if isinstance(item, _CONTAINERS))


def read_document(fields: dict[str, Any], kind: type[AnyDocument], *, what: str, version: int) -> AnyDocument:
    """Return the document that parsed JSON is; ``what`` names its kind in messages.

    Raises :class:`~maskscore.errors.JobError` with ``document_version_unsupported`` for another version and
    ``document_invalid`` for everything else that does not fit.
    """
    given = fields.get("version", version)
    if given != version:
        raise JobError(
            FailureCode.DOCUMENT_VERSION_UNSUPPORTED,
            f"The {what} document has version {given!r:.60}; this release reads version {version}. "
            "Install the same maskscore release for the producer and the workers.",
        )
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The {what} document is not valid: {explain(error)}.") from error


def explain(error: ValidationError, *, limit: int = 3) -> str:
    """Say in one line what a :class:`pydantic.ValidationError` found and where, for people and for results."""
    problems = error.errors(include_url=False, include_context=False)
    parts = []
    for problem in problems[:limit]:
        place = ".".join(f"{step!s:.60}" for step in problem["loc"]) or "document"
        parts.append(f"{place}: {problem['msg']} (got {_shown(problem['input'])})")
    if len(problems) > limit:
        parts.append(f"and {len(problems) - limit} more")
    return "; ".join(parts)


def pack(document: Document, *, preset: bool = False) -> bytes:
    """Return the document as zlib-compressed JSON: how documents and results lie in Redis.

    With ``preset``, zlib begins with what job documents have in common (RFC 1950, FDICT), so that a short one takes a
    third of the bytes; release 0 cannot read it.
    """
    if not preset:
        return zlib.compress(document.model_dump_json().encode(), level=1)
    deflate = zlib.compressobj(level=6, zdict=_PRESET)
    return deflate.compress(document.model_dump_json().encode()) + deflate.flush()


def unpack(data: bytes, *, max_bytes: int = 64 * MIB) -> bytes:
    """Return the JSON that :func:`pack` compressed.

    Raises :class:`~maskscore.errors.JobError` (``document_invalid``) for anything else, and for more than ``max_bytes``
    of JSON, which are not held in memory then.
    """
    if len(data) * _LARGEST_RATIO > max_bytes:
        _check_unpacked_size(data, max_bytes)
    inflate = zlib.decompressobj(zdict=_PRESET)
    try:
        document = inflate.decompress(data)
    except zlib.error as error:
        raise _not_packed(error) from error
    if not inflate.eof or inflate.unused_data:
        what = "goes on after its end" if inflate.eof else "ends too early"
        raise JobError(FailureCode.DOCUMENT_INVALID, f"The compressed document of {len(data):,} bytes {what}.")
    return document


def _check_unpacked_size(data: bytes, max_bytes: int) -> None:
    inflate = zlib.decompressobj(zdict=_PRESET)
    size = 0
    try:
        while piece := inflate.decompress(data, MIB):
            data = inflate.unconsumed_tail
            size += len(piece)
            if size > max_bytes:
                raise JobError(
                    FailureCode.DOCUMENT_INVALID,
                    f"The document unpacks to more than {max_bytes:,} bytes. Put the masks into an object and give its "
                    "URI as `masks`.",
                )
    except zlib.error as error:
        raise _not_packed(error) from error


def _not_packed(error: zlib.error) -> JobError:
    return JobError(FailureCode.DOCUMENT_INVALID, f"The document is not zlib-compressed JSON: {error}.")


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 3


def _shown(value: object) -> str:
    """Return a value as Python writes it, cut to a few dozen characters however large it is."""
    try:
        shown = _short.repr(value)
    except Exception:  # an integer of thousands of digits has no text, and whose class it is, is not known here
        return f"a value of type {type(value).__name__}"
    return shown if len(shown) <= 60 else shown[:57] + "..."
