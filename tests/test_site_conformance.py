"""Conformance on a model's page: found in and beside results, shown whole, also where it is of others."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_records import example_record, example_report

from affectbench.conformance_report import Conformance, read_report
from affectbench.content import builtin_root
from affectbench.errors import AffectbenchError
from affectbench.identity import checkpoint_digest, digest_of
from affectbench.leaderboard import build_site, build_site_of
from affectbench.store import Store

MODEL = "small-text"
SHIPPED = sorted((builtin_root() / "leaderboard" / "conformance").glob("*.json"))


def page(site: Path, model: str = MODEL) -> str:
    return (site / "models" / f"{model}.html").read_text(encoding="utf-8")


def write(report: Conformance, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.model}.json"
    path.write_text(report.as_json(), encoding="utf-8")
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    Store(tmp_path / "results" / "suite").write(example_record(MODEL))
    return tmp_path / "results" / "suite"


def test_every_check_is_shown_with_its_figures_and_reasons(tmp_path: Path) -> None:
    build_site([example_record(MODEL)], tmp_path / "site", conformance={MODEL: example_report(MODEL)})
    text = page(tmp_path / "site")
    for shown in (
        "1 passed, 1 failed, 1 skipped", "2026-01-01", "a tiny instance", "Qwen2ForCausalLM", "torch 2.13.0",
        "3e\N{MINUS SIGN}07", "0.00035", "apart by 0.2; look at `down`", "takes no &lt;audio&gt;",
        "at most 600 MiB", f"verify-model {MODEL}</code>",
    ):  # fmt: skip
        assert shown in text, shown


def test_a_model_without_a_report_says_how_to_make_one(tmp_path: Path) -> None:
    build_site([example_record(MODEL)], tmp_path / "site")
    assert "Not verified" in page(tmp_path / "site")
    assert f"verify-model {MODEL} --checkpoint" in page(tmp_path / "site")


@pytest.mark.parametrize(
    ("family", "said"), [("f" * 16, "same wrapper"), ("0" * 16, "another version of the wrapper")]
)
def test_a_report_of_other_weights_or_an_older_wrapper_says_so(
    tmp_path: Path, family: str, said: str
) -> None:
    report = example_report(MODEL, instance="checkpoint", family_source=family)
    record = example_record(MODEL)
    hashes = record.hashes.model_copy(update={"model": digest_of(["w" * 16, "float32", "f" * 16])})
    build_site([record.model_copy(update={"hashes": hashes})], tmp_path / "site", conformance={MODEL: report})
    assert said in page(tmp_path / "site")


def test_reports_lie_in_a_results_folder_or_beside_it_and_the_nearest_counts(
    results: Path, tmp_path: Path
) -> None:
    write(example_report(MODEL, date="2026-02-02T00:00:00+00:00"), results.parent / "conformance")
    build_site_of([results], tmp_path / "beside")
    assert "2026-02-02" in page(tmp_path / "beside")
    write(example_report(MODEL, date="2026-03-03T00:00:00+00:00"), results / "conformance")
    build_site_of([results], tmp_path / "in")
    assert "2026-03-03" in page(tmp_path / "in")
    build_site_of([results], tmp_path / "beside")
    files = {path.relative_to(tmp_path / "in") for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert all(
        (tmp_path / "in" / name).read_bytes() == (tmp_path / "beside" / name).read_bytes() for name in files
    )


def test_a_damaged_report_is_left_out_and_named(results: Path, tmp_path: Path) -> None:
    path = write(example_report(MODEL), results / "conformance")
    path.write_text(path.read_text().replace('"tiny"', '"small"'))
    site = build_site_of([results], tmp_path / "site")
    (left_out,) = site.damaged
    assert left_out.path == path
    assert "no conformance report" in left_out.reason
    assert "Not verified" in page(tmp_path / "site")
    with pytest.raises(AffectbenchError, match="is no conformance report"):
        read_report(path)


@pytest.mark.parametrize(
    "path", sorted((builtin_root() / "leaderboard/conformance").glob("*.json")), ids=lambda p: p.stem
)
def test_shipped_reports_are_of_the_shipped_weights_and_passed(path: Path) -> None:
    report = read_report(path)
    assert report.passed
    assert report.weights == checkpoint_digest(builtin_root() / "models" / "reference" / report.model)
    assert {check.id for check in report.checks if check.status == "passed"} >= {
        "nnsight",
        "pyvene",
        "padding",
    }
