"""``python -m benchmarks.leaderboard_size``: building and using a leaderboard of 10,000 generated records."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from affectbench.content import builtin_root
from affectbench.leaderboard import build_site_of
from affectbench.site_pages import Contents, board_files, page_environment
from affectbench.site_summary import Source, read_sources, summary_of
from affectbench.store import Store
from benchmarks.many_records import many_records

T = TypeVar("T")

BOARDS = ("assets/boards.js", "index.html", "guide.html", "models/", "tasks/", "methods/")
USE = """async () => {
  const table = document.querySelector('table[data-board="cells"]');
  const form = document.querySelector("#cells form");
  const timed = async (act) => {
    const start = performance.now();
    act();
    void table.offsetHeight;
    return performance.now() - start;
  };
  const head = (key) => table.querySelector(`th[data-sort="${key}"] button`);
  const type = (text) => { form.elements.q.value = text; form.dispatchEvent(new Event("input")); };
  return {
    "sort by specificity": await timed(() => head("spec").click()),
    "sort by method": await timed(() => head("selector").click()),
    "first search": await timed(() => type("method-1")),
    "next search": await timed(() => type("method-12 model-3")),
    "reset": await timed(() => form.querySelector("[type=reset]").click()),
  };
}"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate records, build, build again, change one record, build again, and use the page in a browser."""
    options = parser().parse_args(arguments)
    with TemporaryDirectory() as scratch:
        if options.boards:
            _measure_boards(options.entries, options.cells, Path(scratch) / "site")
            return 0
        folder = options.records or Path(scratch) / "results"
        if not (folder / "records").is_dir():
            _write(folder, options.entries, options.cells)
        _measure(folder, Path(scratch) / "site")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.leaderboard_size", description=__doc__)
    made.add_argument("--entries", type=int, default=500, help="methods (500)")
    made.add_argument("--cells", type=int, default=20, help="records of each (20)")
    made.add_argument("--records", type=Path, help="folder to keep the records in, and to take them from")
    made.add_argument("--boards", action="store_true", help="the boards and their use alone, no entry pages")
    return made


def _measure_boards(entries: int, cells: int, site: Path) -> None:
    """Boards of records in memory, and their use in a browser: a minute instead of minutes."""
    summaries = [summary_of(record) for record in many_records(entries, cells)]
    digests = {summary.id: summary.id[-8:] for summary in summaries}
    _say("records", len(summaries))
    contents = Contents(summaries, digests, [])
    found = _timed("boards: data, index, model, task and method pages", lambda: _boards(contents))
    for name in ("assets/table.js", "assets/style.css"):
        found[name] = (builtin_root() / "leaderboard" / name).read_bytes()
    for name, content in found.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(content)
    _say("MB of the index with its data and script", _index_bytes(site) / 1e6)
    _print_use(site)


def _write(folder: Path, entries: int, cells: int) -> None:
    store = Store(folder)
    store.prepare()
    for record in many_records(entries, cells):
        store.record_path(record.cell).write_bytes(record.canonical().encode())


def _measure(folder: Path, site: Path) -> None:
    sources = _timed("read and check all records", lambda: read_sources([folder])[0])
    _say("records", len(sources))
    _timed("boards: data, index, model, task and method pages", lambda: _boards(_contents(sources)))
    made = _timed("whole site, nothing there before", lambda: build_site_of([folder], site))
    _say("entry pages made", made.n_made)
    _say("MB of the index with its data and script", _index_bytes(site) / 1e6)
    made = _timed("again, nothing changed", lambda: build_site_of([folder], site))
    _say("entry pages made", made.n_made)
    changed = shutil.copytree(folder, site.parent / "changed")
    record = sources[0].load().model_copy(update={"flags": ["failed_items"]})
    Store(changed).write(record)
    made = _timed("again, one record changed", lambda: build_site_of([changed], site))
    _say("entry pages made", made.n_made)
    _print_use(site)


def _print_use(site: Path) -> None:
    for name, milliseconds in _use(site).items():
        print(f"{milliseconds:10.0f} ms in the browser: {name}")


def _contents(sources: Sequence[Source]) -> Contents:
    digests = {source.summary.id: source.digest for source in sources}
    return Contents([source.summary for source in sources], digests, [])


def _boards(contents: Contents) -> dict[str, bytes]:
    """All boards by file name, made in memory; the figures of comparisons belong to the entries."""
    environment = page_environment(builtin_root() / "leaderboard" / "templates")
    files = [file for file in board_files(environment, contents) if file.name.startswith(BOARDS)]
    return {file.name: file.make() for file in files}


def _index_bytes(site: Path) -> int:
    names = ("index.html", "assets/boards.js", "assets/table.js", "assets/style.css")
    return sum((site / name).stat().st_size for name in names)


def _use(site: Path) -> dict[str, float]:
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        print("no Chromium on the path: the page was not used")
        return {}
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = started.new_page()
        start = time.monotonic()
        page.goto((site / "index.html").as_uri())
        found = {"open the page": 1e3 * (time.monotonic() - start)}
        times: dict[str, float] = page.evaluate(USE)
        started.close()
    return found | times


def _timed(name: str, act: Callable[[], T]) -> T:
    start = time.process_time()
    result = act()
    print(f"{time.process_time() - start:10.2f} CPU s: {name}", flush=True)
    return result


def _say(name: str, value: float) -> None:
    print(f"{value:10.6g} {name}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
