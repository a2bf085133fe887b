"""A selector says at which sites it ranks units; cells are made of what fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_content import BENCHMARK, MODEL, Bench, suite_file, write_protocol, write_selector

from affectbench.content import RegistryError
from affectbench.errors import AffectbenchError
from affectbench.placement import cells_of
from affectbench.plan import jobs_of_suite
from affectbench.registry import Registry
from affectbench.run_command import What


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Protocols of three sites, and selectors for heads, for streams, and for channels."""
    for site in ("neuron", "head", "residual"):
        write_protocol(tmp_path, name=f"at-{site}", site=site, fractions=[0.3])
    for name, sites in (("of_heads", '("head", "neuron")'), ("of_streams", '("residual",)')):
        write_selector(tmp_path, name, sites=sites)
    write_selector(tmp_path, "of_channels")
    return tmp_path


def test_cells_are_the_pairs_that_fit(bench: Bench, folder: Path) -> None:
    suite_file(folder, "several", "at-neuron", "at-head", "at-residual")
    path = folder / "tasks" / "suites" / "several.yaml"
    text = path.read_text()
    start, end = text.index("selectors:"), text.index("interventions:")
    path.write_text(text[:start] + "selectors: [of_heads, of_streams, of_channels]\n" + text[end:])
    (job,) = jobs_of_suite(bench.registry(folder), "several", None)
    found = [(cell.selector, cell.intervention) for cell in cells_of(job)]
    assert found == [
        ("of_heads", "at-neuron"),
        ("of_channels", "at-neuron"),
        ("of_heads", "at-head"),
        ("of_streams", "at-residual"),
    ]
    assert job.size == len(found)


def test_all_selectors_are_those_that_fit(bench: Bench, folder: Path) -> None:
    what = What(model=MODEL, task=BENCHMARK, interventions=["at-residual"])
    (job,) = what.jobs(bench.registry(folder))
    assert "of_streams" in job.selectors
    assert not {"of_heads", "of_channels", "magnitude"} & set(job.selectors)


def test_a_selector_that_fits_no_protocol_is_named(bench: Bench, folder: Path) -> None:
    with pytest.raises(AffectbenchError, match=r"of_heads ranks units of head, neuron.*at-residual"):
        bench.job("of_heads", more=[folder], protocol="at-residual")


def test_sites_are_read_without_running_the_file(tmp_path: Path) -> None:
    path = write_selector(tmp_path, "written_out", sites='("head",)')
    path.write_text(path.read_text() + '\nraise RuntimeError("never run")\n')
    registry = Registry([tmp_path], installed=False)
    assert registry.selector_sites("written_out") == ("head",)
    assert registry.selector_sites("magnitude") == ("gate", "neuron", "feature")


@pytest.mark.parametrize("sites", ["SITES", '"head"', "()", '("head", 3)', '["head"]'])
def test_sites_that_are_not_written_out_say_where(tmp_path: Path, sites: str) -> None:
    write_selector(tmp_path, "computed", sites=sites)
    with pytest.raises(RegistryError, match=r"computed.py:\d+: `sites` is not a tuple of texts"):
        Registry([tmp_path], installed=False).find("selector", "computed")


def test_a_site_that_does_not_exist_is_named(tmp_path: Path) -> None:
    write_selector(tmp_path, "odd", sites='("heads",)')
    with pytest.raises(RegistryError, match=r"site 'heads' does not exist.*did you mean 'head'"):
        Registry([tmp_path], installed=False).selector_sites("odd")
