"""Checks an ONNX file, before ONNX Runtime opens it, for parts that reach outside of it. Pure.

It reads the outline of the protocol buffer alone: operator domains, and tensors that point to other files. It opens no
file, and limits the depth of messages.

The numbers are those of ``onnx.proto`` (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto) and of the wire format
(https://protobuf.dev/programming-guides/encoding/).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OnnxFault", "check_onnx"]

# The operators that ONNX Runtime carries itself. Others would have to come from a library, which is code.
_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_DEPTH_MAX: Final = 64
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX: Final = 10

# By message: which field holds which message; "domain" and "external" are leaves.
_OUTLINE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute", 7: "domain"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}


class OnnxFault(Exception):  # noqa: N818 - a fault of a file, which becomes an OperatorError with its name
    """What is wrong with the file, and the remedy, without the file's name."""


def check_onnx(content: bytes) -> None:
    """Check that a model is whole in itself.

    Raises:
        OnnxFault: not ONNX, operators from outside, or weights in another file.
    """
    if not content:
        raise OnnxFault("is empty; export the model again")
    functions: set[str] = set()
    found: list[tuple[str, bytes]] = []
    try:
        _walk(memoryview(content), "model", 0, found)
        functions.update(_function_domains(content))
    except (ValueError, IndexError) as error:
        message = (
            "is not an ONNX model (not a protocol buffer of that kind); export the model again"
        )
        raise OnnxFault(message) from error
    for what, value in found:
        if what == "external":
            message = (
                "keeps weights in other files (external data), which are not read; save it with its weights "
                "inside: onnx.save(onnx.load(FILE), FILE)"
            )
            raise OnnxFault(message)
        domain = value.decode("utf-8", "replace")
        if domain not in _DOMAINS and domain not in functions:
            known = ", ".join(repr(name) for name in sorted(_DOMAINS) if name)
            message = (
                f"uses operators of the domain {domain!r}, which would need a library of their own; export it with "
                f"those of {known} alone"
            )
            raise OnnxFault(message)


def _walk(message: memoryview, kind: str, depth: int, found: list[tuple[str, bytes]]) -> None:
    """Collect the leaves under a message. Raises ValueError or IndexError where it is malformed or too deep."""
    if depth > _DEPTH_MAX:
        raise ValueError("too deep")
    outline = _OUTLINE[kind]
    for number, value in _fields(message):
        inner = outline.get(number)
        if inner is None or value is None:
            continue
        if inner in _OUTLINE:
            _walk(value, inner, depth + 1, found)
        else:
            found.append((inner, bytes(value)))


def _function_domains(content: bytes) -> Iterator[str]:
    """Yield the domains of functions that the model itself spells out."""
    for number, value in _fields(memoryview(content)):
        if number == 25 and value is not None:  # noqa: PLR2004 - ModelProto.functions
            for inner, name in _fields(value):
                if inner == 10 and name is not None:  # noqa: PLR2004 - FunctionProto.domain
                    yield bytes(name).decode("utf-8", "replace")


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield each field's number, and its bytes where it has a length."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        wire, number = key & 7, key >> 3
        if number == 0:
            raise ValueError("no field has the number 0")
        if wire == _LENGTH:
            length, at = _varint(message, at)
            if length > end - at:
                raise ValueError("longer than what is there")
            yield number, message[at : at + length]
            at += length
            continue
        if wire == _VARINT:
            _, at = _varint(message, at)
        elif wire == _FIXED64:
            at += 8
        elif wire == _FIXED32:
            at += 4
        else:
            raise ValueError("an unknown wire type")
        if at > end:
            raise ValueError("cut off")
        yield number, None


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        byte = message[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:  # noqa: PLR2004 - the last byte has its high bit unset
            return value, at + index + 1
    raise ValueError("a number without end")
