"""A headless Chromium behind chromedriver, spoken to in WebDriver's own HTTP: no library needed."""

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

LIMIT_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(answer: Callable[[], Any]) -> Any:
    """Call until something true comes back; connections that are refused count as not yet."""
    until = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < until:
        try:
            found = answer()
        except (urllib.error.URLError, ConnectionError):
            found = None
        if found:
            return found
        time.sleep(0.1)
    raise TimeoutError(f"nothing within {LIMIT_SECONDS:.0f} s")


@dataclass
class Browser:
    """One window."""

    session: str

    def open(self, url: str, width: int = 1200, height: int = 1600, scheme: str = "light") -> None:
        """Open a page in a screen of this size; a window cannot be as narrow as a phone."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._command("Emulation.setDeviceMetricsOverride", screen)
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self._command("Emulation.setEmulatedMedia", {"features": [preference]})
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Return what a script returns in the page."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """Return the errors on the console since the last call."""
        entries = self._ask("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def requested(self) -> list[str]:
        """Return the addresses asked for since the last call."""
        entries = self._ask("POST", "/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [event for event in events if event["method"] == "Network.requestWillBeSent"]
        return [str(event["params"]["request"]["url"]) for event in sent]

    def screenshot(self, path: Path) -> int:
        """Write what is seen, and return how many colours it has."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))
        with Image.open(path) as picture:
            return len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or [])

    def print(self, path: Path) -> int:
        """Write the page as it prints (A4, PDF), and return how many sheets it takes."""
        pages = {"width": 21.0, "height": 29.7}
        content = base64.b64decode(self._ask("POST", "/print", {"page": pages}))
        path.write_bytes(content)
        return len(re.findall(rb"/Type\s*/Page\b", content))

    def _command(self, name: str, params: dict[str, Any]) -> None:
        self._ask("POST", "/goog/cdp/execute", {"cmd": name, "params": params})

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        return ask(method, self.session + path, body)


def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    request.method = method
    with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:
        return json.load(answer)["value"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Give a browser, or skip the test, saying why; .ci/run forbids the skip."""
    driver = shutil.which("chromedriver")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if driver is None or program is None:
        if os.environ.get("ECG_BROWSER_REQUIRED"):
            pytest.fail("chromium and chromedriver are needed here")
        pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)")
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([driver, f"--port={port}"], **quiet)  # type: ignore[call-overload]
    base = f"http://127.0.0.1:{port}"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options = {
        "goog:chromeOptions": {"binary": program, "args": flags},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    try:
        wait_for(lambda: ask("GET", f"{base}/status")["ready"])
        wanted = {"capabilities": {"alwaysMatch": options}}
        made = ask("POST", f"{base}/session", wanted)
        browser = Browser(f"{base}/session/{made['sessionId']}")
        yield browser
        ask("DELETE", browser.session)
    finally:
        process.terminate()
        process.wait()
