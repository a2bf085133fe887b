"""What `new selector` writes: a working selector file, a test of it, and the card it is submitted with."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path
from string import Template

from affectbench.errors import AffectbenchError
from affectbench.registry import Registry
from affectbench.store import write_atomically
from affectbench.submission import CARD

SELECTOR = Template('''\
"""Log odds: how much more likely a unit is to fire for one emotion than for the others.

Formula: ``score[e] = L[e] - mean over e' != e of L[e']``, L = ln(P / (1 - P)), P = share of tokens with
activation > 0, kept within [0.001, 0.999].
Source: an example; name the paper here, or say "ours".
"""

import numpy as np

from affectbench.evidence import RATE
from affectbench.selector import Selector
from affectbench.sites import FloatArray
from affectbench.study import Study


class $class_name(Selector):
    name = "$name"
    needs = frozenset({RATE})

    def scores(self, study: Study) -> FloatArray:
        rate = study.evidence.rate.clip(0.001, 0.999)
        odds = np.log(rate / (1 - rate))
        others = (odds.sum(axis=0) - odds) / (odds.shape[0] - 1)
        return odds - others
''')

TEST = Template('''\
"""$name against values worked out by hand: three emotions, one layer, four units."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from affectbench.evidence import Evidence
from affectbench.registry import Registry
from affectbench.sites import SiteShape
from affectbench.study import Study

LABELS = ("anger", "happiness", "sadness")
RATE = np.array([[[0.8, 0.5, 0.2, 0.5]], [[0.5, 0.5, 0.5, 0.2]], [[0.5, 0.5, 0.5, 0.8]]])


def study() -> Study:
    """A study whose evidence says exactly RATE."""
    shape = SiteShape(layers=1, width=4)
    evidence = Evidence(LABELS, "gate", "all", shape, np.full(3, 20), np.ones(3), {"rate": RATE})
    nothing = SimpleNamespace()
    return Study(evidence, evidence, nothing, nothing, seed=0, ask=nothing)


def selector():
    folder = Path(__file__).resolve().parent
    return Registry([folder], installed=False).selector("$name")()


def test_scores_by_hand():
    log4 = np.log(4)  # ln(0.8 / 0.2); ln(0.5 / 0.5) = 0.
    half = [-log4 / 2, 0, log4 / 2]
    expected = [[log4, 0, -log4, 0], [*half, -1.5 * log4], [*half, 1.5 * log4]]
    np.testing.assert_allclose(selector().scores(study())[:, 0], expected, atol=1e-12)


def test_the_best_units_within_the_budget():
    units = selector().select(study(), budget=1).units
    assert [found.tolist() for found in units] == [[0], [2], [3]]
''')

SUBMISSION = Template("""\
kind: submission
name: $name
version: 1
title: $title
description: What the units of this method have in common, in a sentence or two.
authors: [Name of an author]
contact: https://example.org/contact     # or an e-mail address
licence: Apache-2.0
# paper: https://arxiv.org/abs/0000.00000
# code: https://example.org/code
suite: quickstart                        # what the method is judged on
identification:                          # what the units are found on
  data: [identification split of each benchmark]
  evaluation_items: false                # true would mean: found on the items that judge them
budget:                                  # what finding them takes
  labelled_items: 420
selector: $name.py                       # or `selections:`, units as data
""")


def new_selector(name: str, folder: Path, registry: Registry) -> list[Path]:
    """Write a selector, its test and its card into `folder`; returns the files.

    Raises `AffectbenchError` for a name that Python or affectbench has already, or a file that is there.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) or keyword.iskeyword(name):
        raise AffectbenchError(f"{name!r} cannot name a selector", hint="lower case, such as log_odds")
    if name in sys.stdlib_module_names:
        raise AffectbenchError(f"{name!r} is a module of Python's library", hint="choose another name")
    taken = [entry for entry in registry.entries("selector") if entry.name == name]
    if taken:
        raise AffectbenchError(f"there is a selector {name!r} already: {taken[0].path}")
    words = {
        "name": name,
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").strip().capitalize(),
    }
    files = {
        folder / f"{name}.py": SELECTOR,
        folder / f"test_{name}.py": TEST,
        folder / CARD: SUBMISSION,
    }
    for path in files:
        if path.exists():
            raise AffectbenchError(f"{path} is there already", hint="choose another folder with --output")
    for path, template in files.items():
        write_atomically(path, template.substitute(words).encode())
    return list(files)
