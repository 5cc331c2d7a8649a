"""Opens CloudEvents 1.0 over Kafka, in binary and structured mode. Pure."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from stream_guard.core.errors import CloudEventError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Headers: TypeAlias = "Sequence[tuple[str, bytes]]"

_STRUCTURED: Final = b"application/cloudevents+json"
_REQUIRED: Final = ("specversion", "id", "source", "type")


def open_cloud_event(
    document: Any,  # noqa: ANN401 - any JSON value
    headers: Headers,
    load: Callable[[bytes], Any],
    *,
    required: bool,
) -> tuple[Any, dict[str, Any]]:
    """Return an event's data and attributes; the document itself and no attributes if it is not an event.

    Follows the Kafka protocol binding (sections 3.2 and 3.3) and the JSON format (section 3.1.1).

    Args:
        document: the JSON of the record's value.
        headers: the record's headers.
        load: parses JSON, for ``data_base64``.
        required: whether a record that is not an event is an error.

    Raises:
        CloudEventError: the event is invalid, or required and missing.
        RecordError: from ``load``.
    """
    attributes, content_type = _attributes(headers)
    if _is_structured(content_type):
        if not isinstance(document, dict):
            raise CloudEventError("a structured CloudEvent must be a JSON object")
        attributes = document
        _check(attributes)
        return _data(document, load), attributes
    if attributes:
        _check(attributes)
    elif required:
        raise CloudEventError(
            "post.format is cloudevents, but the record has neither ce_* headers nor a content-type of "
            "application/cloudevents+json"
        )
    return document, attributes


def is_structured(headers: Headers) -> bool:
    """Return whether a record's value is a whole CloudEvent, its data among the attributes."""
    return any(name.lower() == "content-type" and _is_structured(raw) for name, raw in headers)


def _is_structured(content_type: bytes | None) -> bool:
    # Media types are not case-sensitive (RFC 9110, section 8.3.1).
    return content_type is not None and content_type.lstrip().lower().startswith(_STRUCTURED)


def _data(event: dict[str, Any], load: Callable[[bytes], Any]) -> Any:  # noqa: ANN401 - any JSON value
    if "data" in event:
        return event["data"]
    encoded = event.get("data_base64")
    if not isinstance(encoded, str):
        raise CloudEventError("the CloudEvent has neither data nor data_base64")
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:  # of the alphabet or the padding, and of characters beyond ASCII
        raise CloudEventError("the CloudEvent's data_base64 is not base64") from None
    return load(data)


def _check(attributes: dict[str, Any]) -> None:
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            message = f"the CloudEvent's attribute {name!r} is missing or empty"
            raise CloudEventError(message)
    if attributes["specversion"] != "1.0":
        raise CloudEventError("the CloudEvent's specversion is not 1.0")


def _attributes(headers: Headers) -> tuple[dict[str, Any], bytes]:
    """Return the attributes in a record's ``ce_*`` headers, and its content type."""
    attributes: dict[str, Any] = {}
    content_type = b""
    for name, raw in headers:
        if name.startswith("ce_"):
            attributes[name[3:]] = raw.decode("utf-8", "replace") if raw else ""
        elif name.lower() == "content-type":
            content_type = raw or b""
    return attributes, content_type
