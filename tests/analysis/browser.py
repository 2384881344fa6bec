"""A real headless Chromium for tests of pages: nothing but files, and no error on the console, is put up with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium; a test without one is skipped and says so."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed; .ci/run installs Debian's")
    with sync_playwright() as playwright:
        # Root, as in containers, has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, path: Path, *, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Page]:
    """A page opened from disk without a network; requests elsewhere, console errors and exceptions fail the test."""
    troubles: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True, **options)
    context.on("request", lambda request: _check(request.url, troubles))
    page = context.new_page()
    page.on("console", lambda message: troubles.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(path.resolve().as_uri())
    try:
        yield page
    finally:
        context.close()
    assert troubles == []


def _check(url: str, troubles: list[str]) -> None:
    if not url.startswith("file://"):
        troubles.append(f"asked for {url}")
