"""Chromium without a window, for the pages that people open."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.commands import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Browser:
    """Spoken to over its debugging pipe: messages of JSON, a zero byte after each.

    errors  what the console was told: exceptions, errors, warnings, refusals
    asked   the addresses that were requested
    """

    def __init__(self, profile: Path) -> None:
        read, self.write = os.pipe()
        self.read, write = os.pipe()
        script = f'exec "$@" 3<&{read} 4>&{write}'
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command, "--remote-debugging-pipe", "about:blank"],
            pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read), os.close(write)
        self.buffer, self.count, self.session, self.errors, self.asked = b"", 0, None, [], []
        target = next(t for t in self("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self.session = self("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        self("Runtime.enable"), self("Page.enable"), self("Log.enable"), self("Network.enable")

    def __call__(self, method: str, **parameters) -> dict:
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                piece = os.read(self.read, 1 << 16)
                assert piece, "chromium has ended"
                self.buffer += piece
            one, self.buffer = self.buffer.split(b"\0", 1)
            told = json.loads(one)
            if told.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.errors.append(told["params"])
            if told.get("method") == "Network.requestWillBeSent":
                self.asked.append(told["params"]["request"]["url"])
            if told.get("id") == self.count:
                assert "error" not in told, told
                return told["result"]

    def open(self, address: str) -> None:
        """Go there and wait until the page stands."""
        self("Page.navigate", url=address)
        self.wait_for(f"location.href === {json.dumps(address)} && document.readyState === 'complete'")

    def value(self, expression: str):
        """What a JavaScript expression (or the promise that it is) gives, as JSON holds it."""
        told = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until the expression holds."""
        until = time.monotonic() + PATIENCE
        while not self.value(expression):  # asked from here: a page whose scripts are off has no clock either
            assert time.monotonic() < until, (expression, self.value("document.body.innerText"))
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """A key, down and up."""
        text = {"text": "\r"} if key == "Enter" else {}  # without its text a key presses no button
        self("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self("Input.dispatchKeyEvent", type="keyUp", key=key)

    def mouse(self, kind: str, x: float, y: float) -> None:
        """kind: mouseMoved, mousePressed or mouseReleased, at a point of the window."""
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=int(kind != "mouseMoved"))

    def show(self, *, width: int, height: int = 900, scheme: str = "light", media: str = "") -> None:
        """A window of this size, light or dark, on screen or (media "print") on paper."""
        mobile = width < 500
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self("Emulation.setEmulatedMedia", media=media, features=[feature])

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(PATIENCE)
        os.close(self.read), os.close(self.write)


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile folder; skips the test where there is no Chromium."""
    if CHROMIUM is None:
        pytest.skip("needs chromium or google-chrome")
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
