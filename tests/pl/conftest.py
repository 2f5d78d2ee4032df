"""A section small enough to check by hand, and a browser that opens pages."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

from sthggep._keys import UNITS

WIDTH, HEIGHT = 800, 600  # full-resolution pixels; the stored image is half as large
GENES = ["ACTB", "FASN", "ERBB2", "CD74"]
COLUMNS, ROWS = 6, 4
PITCH, DIAMETER = 100, 50


def gradient() -> np.ndarray:
    """An image whose color shows the position: red grows with x, green with y."""
    y, x = np.mgrid[: HEIGHT // 2, : WIDTH // 2]
    image = np.full((HEIGHT // 2, WIDTH // 2, 3), 128, dtype=np.uint8)
    image[..., 0] = x * 255 / (WIDTH // 2)
    image[..., 1] = y * 255 / (HEIGHT // 2)
    return image


@pytest.fixture
def section() -> Callable[..., ad.AnnData]:
    """Return a function that makes sections: 6 × 4 spots, 100 pixels (200 µm) apart, with counts and a prediction."""

    def make(name: str = "S1", seed: int = 0) -> ad.AnnData:
        rng = np.random.default_rng(seed)
        array = np.array([(x, y) for y in range(ROWS) for x in range(COLUMNS)])
        counts = rng.poisson(5, (len(array), len(GENES) + 1)).astype(np.float32)
        adata = ad.AnnData(
            sparse.csr_matrix(counts),
            obs=pd.DataFrame(
                {"array_x": array[:, 0], "array_y": array[:, 1], "section": pd.Categorical([name] * len(array))},
                index=[f"{x}x{y}" for x, y in array],
            ),
            var=pd.DataFrame(index=[*GENES, "OTHER"]),
        )
        adata.obsm["spatial"] = 100.0 + PITCH * array
        adata.uns["spatial"] = {
            name: {
                "images": {"hires": gradient()},
                "scalefactors": {"tissue_hires_scalef": 0.5, "spot_diameter_fullres": DIAMETER},
                "metadata": {"pitch_um": 200.0},
            }
        }
        adata.obsm["hggep"] = rng.normal(3.0, 0.2, (len(array), len(GENES))).astype(np.float32)
        adata.uns["hggep"] = {"tool": "sthggep", "genes": np.array(GENES), "units": UNITS, "model": "m", "params": {}}
        return adata

    return make


# ---------------------------------------------------------------- a headless browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# The browser reads orders from descriptor 3 and writes answers to 4
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
PATIENCE = 60  # seconds until the browser counts as dead
KEYS = {
    "Tab": ("Tab", 9),
    "Enter": ("Enter", 13),
    "Escape": ("Escape", 27),
    "ArrowLeft": ("ArrowLeft", 37),
    "ArrowUp": ("ArrowUp", 38),
    "ArrowRight": ("ArrowRight", 39),
    "ArrowDown": ("ArrowDown", 40),
    "+": ("Equal", 187),
    "-": ("Minus", 189),
    "0": ("Digit0", 48),
}


class Browser:
    """A headless Chromium, driven over the pipe of its DevTools protocol."""

    def __init__(self, program: str, profile: Path) -> None:
        import fcntl  # Windows has none

        orders, self._to = os.pipe()
        self._from, answers = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (orders, answers)]
        command = [sys.executable, "-c", LAUNCH, *map(str, ends), program, *OPTIONS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(command, pass_fds=ends, stderr=subprocess.DEVNULL)
        for end in (orders, answers, *ends):
            os.close(end)
        self._rest, self._number, self.events = b"", 0, []

    def call(self, method: str, params: dict | None = None, session: str | None = None) -> dict:
        self._number += 1
        order = {"id": self._number, "method": method, "params": params or {}}
        os.write(self._to, json.dumps(order | ({"sessionId": session} if session else {})).encode() + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def _next(self) -> dict:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], PATIENCE)
            assert ready, "The browser does not answer."
            part = os.read(self._from, 1 << 16)
            assert part, "The browser has ended."
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)

    def close(self) -> None:
        self.call("Browser.close")
        self.process.wait(PATIENCE)
        os.close(self._to)
        os.close(self._from)


class Tab:
    """One page in the browser: real clicks, wheels, fingers and keys, and what its script sees."""

    def __init__(self, browser: Browser, path: Path, size: tuple[int, int], *, touch: bool) -> None:
        self.browser = browser
        target = browser.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = browser.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch}
        self.call("Emulation.setDeviceMetricsOverride", screen)
        if touch:
            self.call("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
        self.call("Page.navigate", {"url": path.as_uri()})
        self.wait("document.body?.dataset.ready === 'yes'")
        self.wait("[...document.querySelectorAll('canvas[data-loaded]')].every(c => c.dataset.loaded === 'yes')")

    def call(self, method: str, params: dict | None = None) -> dict:
        return self.browser.call(method, params, self.session)

    def see(self, expression: str) -> Any:
        """The value of an expression of the page."""
        options = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true; the page asks itself, frame after frame."""
        for _ in range(400):
            if self.see(f"new Promise(done => setTimeout(() => done(Boolean({expression})), 25))"):
                return
        pytest.fail(f"Never true: {expression}; {self.problems()}")

    def settle(self) -> None:
        """Wait until what was drawn is on the screen."""
        self.see("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        self.wait("[...document.querySelectorAll('canvas[data-loaded]')].every(c => c.dataset.loaded === 'yes')")

    def text(self, selector: str) -> str:
        return self.see(f"document.querySelector({json.dumps(selector)}).textContent")

    def middle(self, selector: str) -> tuple[float, float]:
        """Scroll to an element; the place of its middle on the screen."""
        return tuple(
            self.see(
                f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
                " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
            )
        )

    def mouse(self, kind: str, x: float, y: float, **options: object) -> None:
        self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **options})
        self.settle()

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", buttons=1, clickCount=1)

    def wheel(self, selector: str, delta: float) -> None:
        self.mouse("mouseWheel", *self.middle(selector), deltaX=0, deltaY=delta)

    def drag(self, selector: str, dx: float, dy: float) -> None:
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        for part in (0.5, 1.0):
            self.mouse("mouseMoved", x + part * dx, y + part * dy, button="left", buttons=1)
        self.mouse("mouseReleased", x + dx, y + dy, button="left", clickCount=1)

    def touch(self, kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        self.call("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        self.settle()

    def press(self, key: str, modifiers: int = 0) -> None:
        code, number = KEYS[key]
        options = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **options, **text})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **options})
        self.settle()

    def write(self, selector: str, text: str) -> None:
        """Replace the text of a field, by the keyboard."""
        self.click(selector)
        self.see(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", {"text": text})
        if not text:
            delete = {"key": "Delete", "code": "Delete", "windowsVirtualKeyCode": 46}
            self.call("Input.dispatchKeyEvent", {"type": "keyDown", **delete})
        self.settle()

    def choose(self, selector: str, value: str) -> None:
        """Choose an option; the list that a click opens is not part of the page."""
        self.see(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
            " e.dispatchEvent(new Event('change')); })()"
        )
        self.settle()

    def pixels(self, selector: str) -> np.ndarray:
        """The pixels of a canvas (height, width, 3), taken from the screen."""
        self.middle(selector)
        box = self.see(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.x + scrollX, b.y + scrollY, b.width, b.height]; })()"
        )
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True), scale=1)
        picture = self.call("Page.captureScreenshot", {"format": "png", "clip": clip})["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"))

    def problems(self) -> list[str]:
        """Errors, lines of the console, and requests to a network."""
        out = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            params = event["params"]
            if event["method"] in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}:
                out.append(json.dumps(params)[:500])
            elif event["method"] == "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith(("data:", "file:")):
                    out.append(f"asked a network for {address}")
        return out


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None or os.name != "posix":
        pytest.skip("Needs a headless Chromium to open the page.")
    running = Browser(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., Tab]]:
    """Opens a page in a headless browser; no page may report an error or ask a network in the end."""
    tabs = []

    def open_tab(path: Path, size: tuple[int, int] = (1400, 1000), *, touch: bool = False) -> Tab:
        tabs.append(Tab(browser, path, size, touch=touch))
        return tabs[-1]

    yield open_tab
    assert [tab.problems() for tab in tabs] == [[]] * len(tabs)
    for tab in tabs:
        tab.call("Page.close")
