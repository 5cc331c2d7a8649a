"""How long a test waits for what must come. Only a test that hangs reaches the deadline; a busy machine does not."""

from __future__ import annotations

from typing import Final

HANG_S: Final = 600.0
