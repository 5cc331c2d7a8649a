"""How values that JSON does not have become JSON-like ones. Pure.

The rules are the same for Avro and Protobuf. Bytes are text where they are UTF-8, and base64 otherwise. A decimal is
a string with all its digits.
"""

from __future__ import annotations

import base64
from decimal import Decimal, localcontext

__all__ = ["bytes_text", "decimal_text"]

_DECIMAL_BYTES_MAX = 64


def bytes_text(value: bytes) -> str:
    """Return bytes as text: by UTF-8, or in base64 where they are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()


def decimal_text(unscaled: bytes, scale: int) -> str | None:
    """Return a decimal from the bytes of its unscaled value (two's complement, big-endian); None if over 64 bytes."""
    if len(unscaled) > _DECIMAL_BYTES_MAX:
        return None
    with localcontext(prec=200):
        return format(Decimal(int.from_bytes(unscaled, signed=True)).scaleb(-scale), "f")
