"""Each shipped protocol of circuits and directions gives whole cells where replies are judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from e2e_content import Bench, write_yaml
from e2e_expression import MODEL, TASK

from affectbench.plan import job_of_names
from affectbench.registry import Registry

SITES = ("head", "neuron", "component", "residual")
SELECTORS = ("circuit", "circuit_heads", "circuit_neurons", "circuit_other", "direction")
SHIPPED = Registry(installed=False)
NAMES = sorted(
    name
    for name in (entry.name for entry in SHIPPED.entries("intervention"))
    if name.startswith(("circuit-", "direction-"))
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_protocol_gives_scored_cells(name: str, writer: Bench, tmp_path: Path) -> None:
    """As shipped, but for what a model of 132 units and 15 items cannot give."""
    protocol = SHIPPED.intervention(name)
    assert protocol.site in SITES
    content = protocol.model_dump(mode="json") | {"name": f"toy-{name}"}
    content["statistics"] |= {"minimum_items": 5}
    content["fractions"] = [max(0.1, fraction) for fraction in protocol.fractions][:1]
    content["controls"] |= {"random_draws": 2}
    write_yaml(tmp_path / "tasks" / "interventions" / f"toy-{name}.yaml", content)
    registry = writer.registry(tmp_path)
    selectors = [each for each in SELECTORS if protocol.site in registry.selector_sites(each)]
    job = job_of_names(registry, MODEL, TASK, selectors, [f"toy-{name}"], 0)
    found, log = writer.run(job, tmp_path / "out", more=[tmp_path])
    assert len(found) == len(selectors) >= 1
    for record in found:
        # A dose may break so small a model; that is a result, and scored.
        assert record.status in ("ok", "collapsed"), (record.cell.selector, record.reason, log.notes)
        assert record.scores is not None
        assert record.expression is not None
        arms = {(each.condition, each.dose) for each in record.expression.conditions}
        doses = {(arm, dose) for arm in ("suppress", "amplify") for dose in getattr(protocol.arms, arm).doses}
        assert arms == doses
