"""Describes the HTTP API of ``review serve`` as an OpenAPI 3.1 document. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from stream_guard.offline.review.queue import ROLES
from stream_guard.records.contracts import reader_schema
from stream_guard.records.review_item import WHY

__all__ = ["BODY_BYTES_MAX", "QUERY", "ROUTES", "ClaimBody", "DecisionBody", "openapi"]

BODY_BYTES_MAX: Final = 16 << 10
_STRICT: Final = ConfigDict(extra="forbid", frozen=True)
_Item = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class ClaimBody(BaseModel):
    """Which item to lease: that one, or else the most urgent that this person may decide."""

    model_config = _STRICT

    item_id: _Item | None = None
    policy: Annotated[str, Field(max_length=200)] | None = None


class DecisionBody(BaseModel):
    """A decision about a leased item; without ``decision`` for a retraction."""

    model_config = _STRICT

    decision: Literal["violates", "safe"] | None = None
    kind: Literal["review", "appeal", "retraction"] = "review"
    category: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    action: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    reason: Annotated[str, Field(max_length=2_000)] | None = None
    valid_until: Annotated[int, Field(ge=0, le=253_402_300_799_999)] | None = None


_DECIDE: Final = ("reviewer", "lead")
# Method, path, name, roles, what it does, schema of the body, and of the answer, with its statuses.
ROUTES: Final[
    tuple[tuple[str, str, str, tuple[str, ...], str, str | None, dict[int, str]], ...]
] = (
    (
        "get",
        "/v1/items",
        "list_items",
        ROLES,
        "List items, most urgent first.",
        None,
        {200: "Items"},
    ),
    (
        "get",
        "/v1/items/{item_id}",
        "show_item",
        ROLES,
        "Show an item with its text and the decisions that this person may see.",
        None,
        {200: "ShownItem", 404: "Error"},
    ),
    (
        "post",
        "/v1/leases",
        "claim",
        _DECIDE,
        "Lease an item, for this person alone.",
        "ClaimBody",
        {200: "Leased", 204: "", 404: "Error", 409: "Error"},
    ),
    (
        "delete",
        "/v1/items/{item_id}/lease",
        "release",
        _DECIDE,
        "End this person's lease.",
        None,
        {204: "", 404: "Error"},
    ),
    (
        "post",
        "/v1/items/{item_id}/decision",
        "decide",
        _DECIDE,
        "Decide about a leased item, and end the lease.",
        "DecisionBody",
        {200: "Decision", 404: "Error", 409: "Error", 503: "Error"},
    ),
    ("get", "/v1/stats", "stats", ROLES, "Counts, quality and agreement.", None, {200: "Report"}),
    (
        "get",
        "/v1/audit",
        "audit",
        ("lead",),
        "The audit trail, newest first.",
        None,
        {200: "Audit"},
    ),
    (
        "get",
        "/metrics",
        "metrics",
        ROLES,
        "The figures of the last review.quality_days, for Prometheus.",
        None,
        {200: ""},
    ),
)
_COMMON: Final = {400: "Error", 401: "Error", 403: "Error", 413: "Error", 422: "Error"}
QUERY: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "/v1/items": {
        "state": {"enum": ["open", "decided", "withdrawn"], "default": "open"},
        "policy": {"type": "string"},
        "why": {"enum": list(WHY)},
        "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50},
    },
    "/v1/audit": {
        "item_id": {"type": "string"},
        "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    },
}
_MEANINGS: Final = {
    200: "Done.",
    204: "Done; there is nothing to return.",
    400: "The request cannot be read.",
    401: "The bearer token is missing or unknown.",
    403: "The role may not do this.",
    404: "There is no such item.",
    409: "The item is leased to somebody else, is not open, or the lease has expired.",
    413: "The body is too large.",
    422: "The decision is incomplete or invalid.",
    503: "Kafka did not take the decision; the lease stays.",
}


def _object(**properties: Any) -> dict[str, Any]:  # noqa: ANN401 - schemas
    return {"type": "object", "required": sorted(properties), "properties": properties}


def _schemas() -> dict[str, Any]:
    item = {k: v for k, v in reader_schema("review-item-1.0.json").items() if k[0] != "$"}
    decision = {k: v for k, v in reader_schema("decision-1.0.json").items() if k[0] != "$"}
    digest = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
    decision = _inlined(decision, digest)
    state = {"enum": ["open", "decided", "withdrawn"]}
    listed = {
        **item,
        "required": sorted({*item["required"], "state"} - {"text"}),
        "properties": {k: v for k, v in {**item["properties"], "state": state}.items() if k != "text"},
    }  # fmt: skip
    text = {"type": ["string", "null"]}
    made = {"type": "array", "items": {"$ref": "#/components/schemas/Decision"}}
    ref = {"$ref": "#/components/schemas/Item"}
    named = {"type": "string"}
    integer = {"type": "integer"}
    lease = _object(item_id=named, token=named, until=integer)
    return {
        "Item": listed,
        "ShownItem": {"allOf": [ref, _object(text=text, decisions=made)]},
        "Items": _object(items={"type": "array", "items": ref}),
        "Lease": lease,
        "Leased": _object(lease={"$ref": "#/components/schemas/Lease"}, item=ref),
        "Decision": decision,
        "Report": _object(
            items={"type": "object", "additionalProperties": integer},
            quality={"type": "array", "items": {"type": "object"}},
            agreement={"type": "object"},
        ),
        "Audit": _object(audit={"type": "array", "items": {"type": "object"}}),
        "Error": _object(error=named),
        "ClaimBody": ClaimBody.model_json_schema(),
        "DecisionBody": DecisionBody.model_json_schema(),
    }


def _inlined(part: Any, digest: dict[str, Any]) -> Any:  # noqa: ANN401 - any part of a schema
    if isinstance(part, list):
        return [_inlined(each, digest) for each in part]
    if not isinstance(part, dict):
        return part
    rest = {name: _inlined(value, digest) for name, value in part.items() if name != "$ref"}
    return {**digest, **rest} if "$ref" in part else rest


def _content(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _operation(route: tuple[Any, ...]) -> dict[str, Any]:
    _, path, name, roles, summary, body, answers = route
    parameters = [
        {"name": query, "in": "query", "required": False, "schema": schema}
        for query, schema in QUERY.get(path, {}).items()
    ]
    if "{item_id}" in path:
        schema = {"type": "string"}
        parameters.append({"name": "item_id", "in": "path", "required": True, "schema": schema})
    found = {
        "operationId": name,
        "summary": summary,
        "description": f"For the roles {', '.join(roles)}.",
        "parameters": parameters,
        "responses": {
            str(status): {"description": _MEANINGS[status]} | ({"content": _content(kind)} if kind else {})
            for status, kind in sorted({**_COMMON, **answers}.items())
        },
    }  # fmt: skip
    return found | ({"requestBody": {"required": True, "content": _content(body)}} if body else {})


def openapi() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route[1], {})[route[0]] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stream Guard review",
            "version": "1.0",
            "description": "The queue of verdicts that people review. Times are Unix time in ms.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }
