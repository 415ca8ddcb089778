"""A real browser for tests: the system's chromium, driven by playwright, which downloads none of its own.

`.ci/run` and `make test` install it (`.ci/browser.py`). Only where neither could, because the user has no root, is a
test that needs it skipped, with that reason; in CI it fails.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

DESKTOP, PHONE = (1280, 800), (390, 844)  # width and height, CSS pixels
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium's sandbox does not run as root, and containers give /dev/shm too little room.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]


@dataclass
class Watched:
    """A page with what it did wrong so far: errors of its console, and addresses outside `home` that it asked for."""

    page: Any  # playwright.sync_api.Page
    home: str
    errors: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def until(self, expression: str, seconds: float = 30) -> Any:
        """The value of a JavaScript expression, once it is true. (Playwright's own waiting evaluates text inside the
        page, which a content security policy forbids.)
        """
        deadline = time.monotonic() + seconds
        while not (value := self.page.evaluate(expression)):
            assert time.monotonic() < deadline, f"never true: {expression}"
            self.page.wait_for_timeout(50)
        return value

    def nothing_wrong(self) -> None:
        assert not self.errors, self.errors
        assert not self.left, self.left


class Browser:
    """`open` gives pages; each has a profile of its own, so that none knows of another."""

    def __init__(self, chromium: Any):
        self.chromium = chromium

    @contextlib.contextmanager
    def open(
        self, url: str, home: str | None = None, size: tuple[int, int] = DESKTOP, dark: bool = False
    ) -> Iterator[Watched]:
        """A page at `url`, in a window of this size. What it asks for outside `home` (default: `url`), is noted and
        refused; `data:` and `blob:` are no requests.
        """
        context = self.chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        try:
            page = context.new_page()
            watched = Watched(page, home or url)

            def route(route: Any) -> None:
                if route.request.url.startswith((watched.home, "data:", "blob:")):
                    route.continue_()
                else:
                    watched.left.append(route.request.url)
                    route.abort()

            page.route("**/*", route)
            page.on("console", lambda line: watched.errors.append(line.text) if line.type == "error" else None)
            page.on("pageerror", lambda error: watched.errors.append(str(error)))
            page.goto(url)
            yield watched
        finally:
            context.close()


def chromium_path() -> str | None:
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's chromium, one process for a session of tests."""
    from playwright.sync_api import sync_playwright

    if (path := chromium_path()) is None:
        reason = "no chromium: on Debian `apt install chromium` (as root; make test does it where it may)"
        if os.environ.get("CLIPMILL_CI") or (hasattr(os, "geteuid") and os.geteuid() == 0):
            pytest.fail(reason)
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield Browser(chromium)
        finally:
            chromium.close()
