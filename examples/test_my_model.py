"""What our model must keep. Copy this into your tests, with your checkpoint, task and selector in it.

The fixture `affectbench_run` comes with affectbench. A cell is run once and kept in pytest's cache, until
model, task, protocol or selector change. `pytest -m "not affectbench"` leaves these tests out.
"""

MODEL = "reference-text"  # A card, a folder of a checkpoint, or a hub id.
TASK = "reference-narratives"
FEW = 20  # Items of each label in each split: enough for a large effect.


def test_the_units_stay_specific(affectbench_run):
    found = affectbench_run(MODEL, "magnitude", task=TASK, limit=FEW)
    assert found.specificity.low > 0.3
    assert found.preservation.low > 0.9
    assert found.base_uar > 0.6


def test_the_claim_stands(affectbench_run):
    found = affectbench_run(MODEL, "magnitude", task=TASK, limit=FEW)  # The same cell: it is not run again.
    assert found.significant
