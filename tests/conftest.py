"""Fixtures that all tests share."""

import os
import tempfile

# Read once, when the libraries are imported: no network, and a place of our own for what is kept.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["AFFECTBENCH_CACHE"] = os.path.join(tempfile.gettempdir(), "affectbench-cache")
os.environ["HF_MODULES_CACHE"] = os.path.join(tempfile.gettempdir(), "affectbench-remote-code")

import pytest
from corpora import corpora
from e2e_content import bench, done, one_thread, run_cli
from e2e_expression import writer, written
from e2e_runs import own
from site_browser import browser, open_page
from submissions import packed

__all__ = [
    "bench",
    "browser",
    "corpora",
    "done",
    "one_thread",
    "open_page",
    "own",
    "packed",
    "run_cli",
    "writer",
    "written",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew")
