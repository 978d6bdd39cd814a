"""JSON: one document, the documents of several images in a list, and JSON Lines."""

from __future__ import annotations

import codecs
from typing import Any

from pydantic_core import from_json

from maskscore.formats.format import Format
from maskscore.formats.image_masks import MasksDocumentError
from maskscore.formats.read_context import ReadContext
from maskscore.formats.registry import recognised

__all__ = ["entries_of_json", "format_of_documents", "parse_json"]


def parse_json(data: bytes) -> Any:
    """Return the document; of JSON Lines the list of their values, and so of a single record.

    JSON in a JSON string (written twice) is read once more. Raises :class:`~maskscore.formats.MasksDocumentError`.
    """
    document = _parsed(data.removeprefix(codecs.BOM_UTF8))
    if isinstance(document, str) and document.lstrip()[:1] in ("[", "{"):
        document = _parsed(document.encode("utf-8", "surrogatepass"))
    return [document] if isinstance(document, dict) and "segmentation" in document else document


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError as error:
        lines = data.splitlines()
        if len(lines) > 1 and lines[0].lstrip()[:1] in (b"{", b"["):
            return _lines(lines, error)
        raise MasksDocumentError(f"The masks are not JSON: {error}.") from error


def _lines(lines: list[bytes], whole: ValueError) -> list[Any]:
    values = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values.append(from_json(line))
        except ValueError as error:
            # What does not begin as JSON Lines is a document that is damaged.
            if not values:
                raise MasksDocumentError(f"The masks are not JSON: {whole}.") from error
            raise MasksDocumentError(f"The masks are not JSON Lines: line {number}: {error}.") from error
    return values


def format_of_documents(document: Any) -> Format | None:
    """Return the format of which each member of a list is a whole document, and no entry of one; else ``None``."""
    if not isinstance(document, list) or not document or not isinstance(document[0], dict):
        return None
    of_first = recognised("json", document[0])
    return None if of_first is None or of_first.recognises(document) else of_first


def entries_of_json(document: Any, format_: Format, context: ReadContext) -> list[Any]:
    """Return the entries of the wanted image in a document of this format, or in a list of such documents.

    Raises :class:`~maskscore.formats.MasksDocumentError` where the document has another format or not this image.
    """
    if format_of_documents(document) is format_:
        document = _document_of(document, format_, context)
    if format_.stated is not None:
        context.polygon_size = format_.stated(document).size
    return format_.entries(document, context)


def _document_of(documents: list[Any], format_: Format, context: ReadContext) -> Any:
    if len(documents) == 1:
        return documents[0]
    if format_.stated is None:
        raise MasksDocumentError(
            f"The file has {len(documents)} documents, and they do not say of which image each is. Save each as a file "
            "of its own, beside its image."
        )
    found = [documents[at] for at in context.called(format_.stated(document).name for document in documents)]
    if len(found) != 1:
        raise MasksDocumentError(
            f"The file has {len(found) or 'no'} documents of the image with {context.words}, of {len(documents)}."
        )
    return found[0]
