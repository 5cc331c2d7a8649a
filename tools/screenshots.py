"""Takes pictures of every page of the console for the guide: light, dark, and on a phone (``make screenshots``).

It starts ``make demo-console``, waits until verdicts have come, and opens each page in the tests' browser. Pictures
have few colours, so that they are small.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from stream_guard.cli.terminal import say, say_error
from stream_guard.console.pages.registry import PAGES
from tests.console import PHONE, open_browser
from tests.hang import HANG_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from playwright.async_api import Browser, Page

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "images" / "console"
BYTES_MAX: Final = 2 << 20
"""Of all pictures together."""
LOOKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "light": {"viewport": {"width": 1_200, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1_200, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": PHONE, "color_scheme": "light"},
}
_COLOURS: Final = 48
_ADDRESS: Final = re.compile(r"(http://127\.0\.0\.1:\d+)/sign-in#(\S+)")
_FLOW_S: Final = 45.0
"""How long posts flow before the first picture: about one round of them."""
_SETTLE_S: Final = 1.5
"""A page's moving parts come within a second."""


async def _take(browser: Browser, url: str, token: str) -> int:
    """Write the pictures; return their bytes."""
    total = 0
    for look, options in LOOKS.items():
        context = await browser.new_context(**options)
        page = await context.new_page()
        page.set_default_timeout(HANG_S * 1_000)
        await page.goto(f"{url}/sign-in")
        total += await _picture(page, f"sign-in-{look}")
        await page.goto(f"{url}/sign-in#{token}")
        # The address differs in the part behind # alone, so the page is not loaded again: its script signs in.
        await page.wait_for_url(lambda address: "sign-in" not in address)
        for each in PAGES:
            await page.goto(f"{url}/{each.slug}")
            if each.slug == "review":
                # A reviewer has asked for an item.
                await page.keyboard.press("n")
                await page.wait_for_load_state()
            await asyncio.sleep(_SETTLE_S)
            total += await _picture(page, f"{each.slug}-{look}")
        await context.close()
    return total


async def _picture(page: Page, name: str) -> int:
    shot = Image.open(io.BytesIO(await page.screenshot()))
    file = FOLDER / f"{name}.png"
    shot.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    say(f"  {file.relative_to(ROOT)}, {file.stat().st_size:,} bytes")
    return file.stat().st_size


async def _demo(folder: str) -> tuple[asyncio.subprocess.Process, str, str]:
    """Start the demo; return its process, its address and its token, once posts flow.

    Raises:
        RuntimeError: it ended.
    """
    demo = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stream_guard.cli.demo.console"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STREAM_GUARD_CONSOLE__PORT": "0"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert demo.stdout is not None, "it is a pipe"
    address = None
    async for line in demo.stdout:
        words = line.decode(errors="replace").rstrip()
        address = address or _ADDRESS.search(words)
        if _ADDRESS.search(words) is None:
            say(f"  {words}", style="dim")
        if address is not None and "posts are flowing" in words:
            return demo, address[1], address[2]
    message = "the demo ended before posts were flowing; its last lines say why"
    raise RuntimeError(message)


async def _run() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stream-guard-screenshots-") as folder:
        demo, url, token = await _demo(folder)
        try:
            await asyncio.sleep(_FLOW_S)
            async with open_browser() as browser:
                total = await _take(browser, url, token)
        finally:
            demo.send_signal(signal.SIGINT)
            # Read to the end: a full pipe would hold it back.
            await demo.communicate()
    say(f"{total:,} bytes in {FOLDER.relative_to(ROOT)}")
    if total > BYTES_MAX:
        say_error(f"the pictures have more than {BYTES_MAX:,} bytes; lower their colours or sizes")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_run()))
