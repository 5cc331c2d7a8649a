"""Makes untrusted bytes safe to print: as text where they are UTF-8, else as a hex dump. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_guard.core.visible_text import visible_text

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["visible_bytes"]

_HEX_COLUMNS: Final = 16


def visible_bytes(held: bytes, bytes_max: int) -> Iterator[str]:
    """Yield the first ``bytes_max`` bytes as lines, with control characters written out, or as a hex dump."""
    shown = held[:bytes_max]
    try:
        # A cut may have gone through a character: up to three bytes of it are left over.
        whole = shown.decode("utf-8") if len(shown) == len(held) else _cut_text(shown)
        yield from visible_text(whole).split("\n")
    except UnicodeDecodeError:
        for at in range(0, len(shown), _HEX_COLUMNS):
            part = shown[at : at + _HEX_COLUMNS]
            printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)  # noqa: PLR2004 - ASCII
            yield f"{at:08x}  {part.hex(' '):<{3 * _HEX_COLUMNS}} {printable}"


def _cut_text(shown: bytes) -> str:
    for missing in range(3):
        try:
            return shown[: len(shown) - missing].decode("utf-8")
        except UnicodeDecodeError:
            continue
    return shown[:-3].decode("utf-8")
