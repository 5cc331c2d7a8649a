"""``python -m stream_guard``: the same as the command ``stream-guard``."""

from __future__ import annotations

from stream_guard.cli.main import main

if __name__ == "__main__":
    main()
