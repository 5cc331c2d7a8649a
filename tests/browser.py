"""A real browser for tests: Chromium's headless shell out of one npm package, driven over its own debugging pipe.

The package brings the libraries that Chromium needs but for the C library, and fonts, so it runs where only Python is.
npm itself comes in a wheel, and finds its registry and proxies as npm does. What it must never do: fall back to a
browser of the machine's, or be skipped.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import select
import shutil
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cramjam

from tests.hang import HANG_S
from tests.npm import fetch_package

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = "@sparticuz/chromium@147.0.0"
SHA512: Final = (
    "e1929e01041af2ea769adebbe6a4a2b73b4b75b42b95ff0129d0b99da79aa7ee"
    "4cbf5395d4e94974fa14f84242fe9e6c414254426378afeab9f8485a68e507a5"
)
_CACHE: Final = Path(__file__).parents[1] / ".cache" / "browser"
_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)


def fetch_browser() -> Path:
    """Return the folder with the browser, fetched and unpacked once.

    Raises:
        RuntimeError: npm cannot fetch it, or what it fetched is something else.
    """
    folder = _CACHE / SHA512[:16]
    if folder.is_dir():
        return folder
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
        content = fetch_package(PACKAGE, SHA512, Path(scratch))
        unpacked = Path(scratch) / "browser"
        _unpack(content, unpacked)
        with contextlib.suppress(OSError):  # another process was first
            unpacked.rename(folder)
    return folder


def _unpack(content: bytes, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for name in ("chromium.br", "al2023.tar.br", "fonts.tar.br"):
            packed = package.extractfile(f"package/bin/{name}")
            assert packed is not None, f"{PACKAGE} has {name}"
            plain = bytes(cramjam.brotli.decompress(packed.read()))
            if name.endswith(".tar.br"):
                with tarfile.open(fileobj=io.BytesIO(plain)) as inner:
                    inner.extractall(folder, filter="data")
                continue
            program = folder / name.removesuffix(".br")
            program.write_bytes(plain)
            program.chmod(0o755)


def fonts_file(folder: Path, home: Path) -> Path:
    """Write where the package's fonts lie: its own file expects them at one place of the machine."""
    file = home / "fonts.conf"
    file.write_text(
        f"<fontconfig><dir>{folder / 'fonts'}</dir><cachedir>{home / 'cache'}</cachedir></fontconfig>\n"
    )
    return file


class Page:
    """One page of a browser.

    Attributes:
        requests: addresses that the page asked for, in order.
        messages: errors that it told its console.
    """

    def __init__(self, browser: _Pipe, session: str) -> None:
        self._browser = browser
        self._session = session
        self.requests: list[str] = []
        self.messages: list[str] = []

    def call(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - any JSON
        """Call the DevTools protocol."""
        return self._browser.call(method, parameters, self._session)

    def open(self, file: Path) -> None:
        """Open a file, and return when it has loaded with all that it asks for."""
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=file.resolve().as_uri())
        self._browser.wait("Page.loadEventFired", self._session)
        for event in self._browser.events:
            if event["method"] == "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            elif event["method"] == "Log.entryAdded":
                self.messages.append(event["params"]["entry"]["text"])

    def value(self, expression: str) -> Any:  # noqa: ANN401 - any JSON
        """Return what a JavaScript expression comes to in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def picture(self, selector: str) -> bytes:
        """Return a PNG of what an element shows, one pixel a unit."""
        box = self.value(
            f"(r => [r.x + scrollX, r.y + scrollY, r.width, r.height])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        shot = self.call(
            "Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True
        )
        return base64.b64decode(shot["data"])


class _Pipe:
    """The debugging pipe: JSON documents with a NUL after each."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._number = 0
        self._rest = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:  # noqa: ANN401
        self._number += 1
        document = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            document["sessionId"] = session
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(json.dumps(document).encode() + b"\0")
        self._process.stdin.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def wait(self, method: str, session: str) -> None:
        """Return once an event has come."""
        while not any(
            event["method"] == method and event.get("sessionId") == session for event in self.events
        ):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None, "it is a pipe"
        end = time.monotonic() + HANG_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select(
                [self._process.stdout], [], [], max(0, end - time.monotonic())
            )
            if not ready:
                message = f"the browser said nothing for {HANG_S:g} s"
                raise RuntimeError(message)
            part = os.read(self._process.stdout.fileno(), 1 << 20)
            if not part:
                message = f"the browser ended with {self._process.wait()}"
                raise RuntimeError(message)
            self._rest += part
        document, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(document)
        return answer


@contextlib.contextmanager
def open_page(*, width: int = 1_200, height: int = 900, dark: bool = False) -> Iterator[Page]:
    """Start the browser with an empty page; end it, and all its processes, after."""
    folder = fetch_browser()
    home = tempfile.mkdtemp(prefix="stream-guard-browser-")
    environment = {
        "HOME": home,
        "PATH": os.environ["PATH"],
        "LD_LIBRARY_PATH": str(folder / "lib"),
        "FONTCONFIG_FILE": str(fonts_file(folder, Path(home))),
    }
    process = subprocess.Popen(
        # Chromium takes the pipe at the descriptors 3 and 4.
        [
            "/bin/sh",
            "-c",
            'exec "$0" "$@" 3<&0 4>&1',
            str(folder / "chromium"),
            *_FLAGS,
            f"--user-data-dir={home}/data",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    try:
        pipe = _Pipe(process)
        target = pipe.call(
            "Target.createTarget", {"url": "about:blank", "width": width, "height": height}
        )
        attached = pipe.call(
            "Target.attachToTarget", {"targetId": target["targetId"], "flatten": True}
        )
        page = Page(pipe, attached["sessionId"])
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        yield page
        pipe.call("Browser.close", {})
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()
        shutil.rmtree(home, ignore_errors=True)
