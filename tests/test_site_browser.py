"""The site's script in a real browser: sorting, filters, the hash, the keyboard, pages, a narrow screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from example_records import example_record, example_store

from affectbench import leaderboard
from affectbench.leaderboard import build_site
from affectbench.record import Record

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: the script cannot be run"),
]

ROWS = """
const cells = (column) => [...document.querySelectorAll("#rows tbody tr.row")]
  .map((row) => row.cells[column].dataset.v);
const kinds = () => [...document.querySelectorAll("#rows tbody tr.row")].map((row) => row.dataset.kind);
const head = (name) => document.querySelector(`#rows th[data-sort="${name}"]`);
"""


def result_of(
    site: Path, script: str, *, hash_: str = "", page: str = "index.html", width: int = 1280
) -> Any:
    """What `script` (a function body) returns in a page of the site, opened from disk at this width."""
    wrapper = site / "wrapper.html"
    source = json.dumps(f"{page}{hash_}")
    wrapper.write_text(
        f"""<body style="margin:0"><iframe style="border:0" width="{width}" height="900"></iframe>
        <pre id="result"></pre><script>
        const frame = document.querySelector("iframe");
        frame.onload = () => {{
          const view = frame.contentWindow, document_ = frame.contentDocument;
          let answer;
          try {{
            answer = view.eval({json.dumps("(() => {" + ROWS + script + "})()")});
          }} catch (error) {{ answer = {{ failed: String(error) }}; }}
          document.getElementById("result").textContent = JSON.stringify(answer);
        }};
        frame.src = {source};</script>""",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--allow-file-access-from-files", f"--user-data-dir={site.parent / 'profile'}",
            "--virtual-time-budget=5000", "--dump-dom", wrapper.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    wrapper.unlink()
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    assert found[1], "the page did not load"
    answer = json.loads(unescape(found[1]))
    assert not (isinstance(answer, dict) and "failed" in answer), answer
    return answer


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    return example_store(tmp_path_factory.mktemp("store")).read_all()[0]


@pytest.fixture(scope="module")
def site(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("www") / "under" / "a path" / "site"
    build_site(records, output)
    return output


def test_the_hash_sorts_and_keeps_rows_without_a_score_last(site: Path, records: list[Record]) -> None:
    for direction, sign in (("descending", -1), ("ascending", 1)):
        found = result_of(
            site, "return [cells(4), kinds(), head('spec').ariaSort]", hash_=f"#sort=spec&dir={direction}"
        )
        values = [float(value) for value in found[0] if value]
        assert values == sorted(values, key=lambda value: sign * value)
        assert len(found[0]) == len(records)
        assert found[1][-2:] == ["unscored", "unscored"]
        assert found[2] == direction


def test_clicks_on_a_header_sort_then_reverse_and_write_the_hash(site: Path) -> None:
    found = result_of(
        site,
        """const button = head("agg").querySelector("button");
        button.click(); const down = [head("agg").ariaSort, location.hash];
        button.click(); const up = [head("agg").ariaSort, location.hash];
        button.focus();
        const groups = document.querySelectorAll("#rows tr.group").length;
        return [down, up, document.activeElement === button, groups]""",
    )
    assert found == [["descending", "#sort=agg&dir=descending"], ["ascending", "#sort=agg"], True, 0]


def test_filters_search_and_reset(site: Path, records: list[Record]) -> None:
    found = result_of(
        site,
        """const form = document.getElementById("filters");
        const fire = () => form.dispatchEvent(new Event("input"));
        form.elements.model.value = "small-audio"; form.elements.controls.checked = false; fire();
        const one = [cells(2), kinds(), location.hash];
        form.elements.model.value = ""; form.elements.q.value = "Out OF memory"; fire();
        const two = [cells(1), document.getElementById("shown").textContent];
        form.querySelector("[type=reset]").click();
        return [one, two, cells(1).length, location.hash, form.elements.q.value]""",
    )
    models, kinds, address = found[0]
    assert set(models) == {"small-audio"}
    assert "control" not in kinds
    assert address == "#model=small-audio&controls=0"
    assert found[1] == [["probe"], f"1 of {len(records)} rows"]
    assert found[2:] == [len(records), "", ""]


def test_a_hash_with_unknown_values_shows_everything(site: Path, records: list[Record]) -> None:
    found = result_of(site, "return cells(0).length", hash_="#sort=<b>&model=nobody&page=-4&dir=x")
    assert found == len(records)


def test_later_pages_come_from_the_script_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "STATIC_ROWS", 4)
    monkeypatch.setattr(leaderboard, "PAGE_SIZE", 3)
    one = example_record(bootstrap_draws=100)
    many = [one.model_copy(update={"cell": one.cell.model_copy(update={"seed": seed})}) for seed in range(8)]
    build_site(many, tmp_path / "site")
    found = result_of(
        tmp_path / "site",
        """const seen = []; const next = document.querySelector('[data-step="1"]');
        const add = () => seen.push(...document.querySelectorAll("#rows tbody th.name a"));
        add(); next.click(); add(); next.click(); add();
        return [seen.map((a) => a.href.split("/").pop()), next.disabled, location.hash]""",
    )
    assert len(set(found[0])) == 8
    assert found[1:] == [True, "#page=3"]


def test_no_page_is_wider_than_a_phone_and_nothing_is_fetched(site: Path) -> None:
    entry = next(iter((site / "entries").glob("small-text*mad*"))).relative_to(site)
    for page in ("index.html", str(entry)):
        found = result_of(
            site,
            """const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
            const outside = loaded.filter((name) => !name.startsWith("file:"));
            return [document.documentElement.scrollWidth, outside.length]""",
            page=page,
            width=390,
        )
        assert found[0] <= 390, page
        assert found[1] == 0


def test_choosing_a_dose_shows_its_panel_alone(site: Path) -> None:
    entry = next(iter((site / "entries").glob("small-text*mad*"))).relative_to(site)
    found = result_of(
        site,
        """const seen = () => [...document.querySelectorAll(".panel")]
          .map((panel) => getComputedStyle(panel).display !== "none");
        const before = seen(); document.querySelector('label[for="d2"]').click();
        return [before, seen()]""",
        page=str(entry),
    )
    assert found == [[True, False, False, False], [False, False, True, False]]
