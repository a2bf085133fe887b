"""The example site in a real browser.

Every page is watched: an error on the console or a request that leaves the site fails the test.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from example_analyses import example_analysis
from example_records import example_report

from affectbench.leaderboard import build_site
from affectbench.record import Record

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLAYWRIGHT = importlib.util.find_spec("playwright") is not None

NEEDS_BROWSER = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: the script cannot be run"),
    pytest.mark.skipif(not PLAYWRIGHT, reason="playwright is not installed: pip install -e .[dev]"),
]

CELLS = 'table[data-board="cells"]'
OVERALL = 'table[data-board="overall"]'
Open = Callable[..., Any]


def example_site(records: list[Record], root: Path) -> Path:
    """The site of those records, in a folder whose path has a blank."""
    output = root / "under" / "a path" / "site"
    reports = {record.cell.model: example_report(record.cell.model) for record in records}
    build_site(records, output, conformance=reports, analyses=[example_analysis()])
    return output


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Any, site: Path) -> Iterator[Open]:
    """Opens a page of the site from disk; at the end of the test says what went wrong behind the scenes."""
    contexts, wrong = [], []

    def note(request: Any) -> None:
        if urlsplit(request.url).scheme not in ("file", "data", "blob"):
            wrong.append(f"request to {request.url}")

    def opened(name: str = "index.html", *, root: Path = site, width: int = 1280, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", note)
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        path, _, fragment = name.partition("#")
        page.goto((root / path).as_uri() + (f"#{fragment}" if fragment else ""))
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def column(page: Any, key: str, table: str = CELLS) -> list[str]:
    """The texts of a column's cells, without intervals and the lines below."""
    script = """([table, key]) => {
      const heads = [...document.querySelector(table).tHead.rows[0].cells];
      const at = heads.findIndex((head) => head.dataset.sort === key);
      return [...document.querySelectorAll(`${table} tbody tr.row`)].map((row) => {
        const cell = row.cells[at].cloneNode(true);
        cell.querySelectorAll(".sub, .ci, .mark, .tie, .badge.control").forEach((part) => part.remove());
        return cell.textContent.trim();
      });
    }"""
    found: list[str] = page.evaluate(script, [table, key])
    return found


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("−", "-")) for text in texts if text != "–"]


def head(page: Any, key: str, table: str = CELLS) -> Any:
    return page.locator(f'{table} th[data-sort="{key}"]')


def clean(page: Any) -> None:
    """axe-core finds nothing on the page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    listed = [
        f"{item['id']}: {item['help']}: {[node['html'][:160] for node in item['nodes'][:3]]}"
        for item in found.response["violations"]
    ]
    assert not listed
