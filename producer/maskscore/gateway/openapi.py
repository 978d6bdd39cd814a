"""The OpenAPI document: the routes as FastAPI describes them, the contract's models, and what generators stumble over.

OpenAPI 3.1: https://spec.openapis.org/oas/v3.1.0. It has no type for the items of a stream (``itemSchema``, which
FastAPI writes, is 3.2's): an event stream has the schema of one event.
"""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from maskscore.gateway.batch_routes import BatchView
from maskscore.gateway.job_routes import Ended
from maskscore.gateway.problems import Problem
from maskscore.schema import Document, Job, JobResult, Shard, result

__all__ = ["openapi_document"]

_TAGS: Final = [
    {
        "name": "jobs",
        "description": "One image and its masks; or a shard, many images that one worker scores into Parquet.",
    },
    {"name": "batches", "description": "Many jobs, followed together."},
    {"name": "health", "description": "Without a token."},
]
_HEADERS: Final = {
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}},
}
_EVENTS: Final[dict[str, tuple[str, dict[str, type[BaseModel]]]]] = {
    "job_events": ("JobEvent", {"ended": Ended, "problem": Problem}),
    "batch_events": ("BatchEvent", {"ended": Ended, "done": BatchView, "problem": Problem}),
}
# Results are sent with all of their fields, but for those that their own rule leaves out.
_SENT_WHOLE: Final = [
    model
    for model in vars(result).values()
    if isinstance(model, type) and issubclass(model, Document) and model.__module__ == result.__name__
]


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the models of the contract."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, tags=_TAGS
        )
        _, contract = models_json_schema(
            [
                (Job, "validation"),
                (Shard, "validation"),
                (JobResult, "serialization"),
                (Problem, "serialization"),
                (Ended, "serialization"),
            ],
            ref_template="#/components/schemas/{model}",
        )
        components = document.setdefault("components", {})
        schemas = components["schemas"] = {**components.get("schemas", {}), **contract["$defs"]}
        components["headers"] = _HEADERS
        for model in _SENT_WHOLE:
            if model.__name__ in schemas:
                _require_sent_fields(schemas[model.__name__], model)
        _leave_out_nulls(schemas["Problem"])
        for name, kinds in _EVENTS.values():
            schemas[name] = {"oneOf": [_event(kind, model) for kind, model in kinds.items()]}
        for methods in document["paths"].values():
            for operation in methods.values():
                _fix_operation(operation)
        # Statuses are numbers in FastAPI's document, and texts in JSON.
        app.openapi_schema = json.loads(json.dumps(document))
    return app.openapi_schema


def _require_sent_fields(schema: dict[str, Any], model: type[BaseModel]) -> None:
    schema["required"] = [name for name, field in model.model_fields.items() if field.exclude_if is None]


def _leave_out_nulls(schema: dict[str, Any]) -> None:
    """A problem's fields are left out where they say nothing; none is null."""
    properties = schema["properties"]
    schema["required"] = [name for name, each in properties.items() if not _drop_null(each)]


def _drop_null(schema: dict[str, Any]) -> bool:
    """Take ``null`` out of what a value may be; return whether it was there."""
    kinds = schema.get("anyOf", [])
    if {"type": "null"} not in kinds:
        return False
    (kind,) = [each for each in kinds if each != {"type": "null"}]
    del schema["anyOf"]
    if schema.get("default", ...) is None:
        del schema["default"]
    schema.update(kind)
    return True


def _event(kind: str, model: type[BaseModel]) -> dict[str, Any]:
    """One server-sent event; its data are JSON text."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    properties: dict[str, Any] = {
        "event": {"type": "string", "const": kind},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": reference},
    }
    required = ["event", "data"]
    if kind != "problem":
        properties["id"] = {"type": "string", "description": "To be sent as `Last-Event-ID`; the cursor of a batch."}
        required.append("id")
    return {"title": f"{kind} event", "type": "object", "properties": properties, "required": required}


def _fix_operation(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        # A parameter is there or not; it is never null.
        _drop_null(parameter["schema"])
    for response in operation["responses"].values():
        stream = response.get("content", {}).get("text/event-stream")
        if stream is not None:
            stream.clear()
            stream["schema"] = {"$ref": f"#/components/schemas/{_EVENTS[operation['operationId']][0]}"}
