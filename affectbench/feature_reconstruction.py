"""The analysis `feature-reconstruction`: what SAEs do to answers before any feature is touched.

At the answer position the stream after one layer is replaced by what its SAE reconstructs; nothing is
ablated. What that changes is no effect of features, and no effect of features has it: edits keep the error
term.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor

from affectbench.analyses import Asked, Content
from affectbench.analysis import Column, Finding, Table
from affectbench.dictionary import LayerDictionary
from affectbench.errors import AffectbenchError
from affectbench.intervention import hooked
from affectbench.journal import Arrays
from affectbench.label_free import macro_f1_of
from affectbench.pieces import Progress
from affectbench.prior import clustered_mean
from affectbench.readout import FAILED, Codes, codes_of, to_labels
from affectbench.score_models import Estimate
from affectbench.session import Session
from affectbench.sites import RESIDUAL

COLUMNS = ("Layer", "Accuracy", "Change of accuracy", "Macro-F1", "Answers that change")


def analyse(asked: Asked) -> Content:
    """Raises `AffectbenchError` where an answer needs more than one pass."""
    session = asked.session
    items, dictionary = session.items("test"), session.model.dictionary
    assert dictionary is not None, "analyses of features are given some"
    if not session.readout.one_pass:
        raise AffectbenchError(
            "answers of several tokens, or generated ones, are not read here", hint="use single-token labels"
        )
    base = session.base(items)[0]
    count = len(session.benchmark.labels)
    rows: list[list[str | float | int | Estimate | None]] = [
        ["none", float((base == items.gold).mean()), None, macro_f1_of(items.gold, base, count), None]
    ]
    changes = {}
    for layer in dictionary.layers:
        codes = reconstructed(session, dictionary.at(layer), layer, asked)
        changes[layer] = clustered_mean(
            (codes == items.gold) * 1.0 - (base == items.gold), items.clusters,
            draws=asked.number("bootstrap_draws"), seed=asked.seed,
        )  # fmt: skip
        kept, moved = float((codes == items.gold).mean()), float((codes != base).mean())
        rows.append([str(layer), kept, changes[layer], macro_f1_of(items.gold, codes, count), moved])
    worst = min(changes, key=lambda layer: changes[layer].value)
    told = Finding(
        name="largest-loss",
        text=f"Change of accuracy by reconstruction alone, where it is lowest, after layer {worst}:",
        value=changes[worst],
    )
    table = Table(
        name="layers",
        title="The stream at the answer position replaced by its reconstruction, one layer at a time",
        columns=[Column(name=name) for name in COLUMNS],
        rows=rows,
        note="Nothing is ablated here. Intervals are 95 %, over clusters.",
    )
    return Content(
        n={"items": len(items), "clusters": len(set(items.clusters))}, findings=[told], tables=[table]
    )


def reconstructed(session: Session, features: LayerDictionary, layer: int, asked: Asked) -> Codes:
    """(N,) codes of the test items with the stream after `layer` reconstructed at the answer position."""
    engine, model, readout, items = session.engine, session.model, session.readout, session.items("test")
    codes = np.full(len(items), FAILED, dtype=np.int8)

    def replace(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        own = features.to(hidden.device)
        z = own.encode(hidden[:, -1])
        changed[:, -1] = (z @ own.decoder.float() + own.decoder_bias.float()).to(hidden.dtype)
        return changed

    def answered(places: list[int], tell: Progress) -> Arrays:
        batch = model.collate([items.items[place] for place in places])
        with torch.no_grad(), hooked([(*model.site_module(RESIDUAL, layer), replace)]):
            hidden = model.decode(batch, last=1)
            scores = readout.first_scores(model.logits(hidden[:, -1])).cpu().numpy()
        engine.spent(len(places))
        orders = None if items.orders is None else items.orders[places]
        tell(len(places))
        return {"codes": codes_of(to_labels(scores, orders))}

    dictionary = model.dictionary
    assert dictionary is not None, "analyses of features are given some"
    about = "reconstructed", items.digest, repr(readout.candidates), dictionary.digest, str(layer)
    for places in engine.batches(items.items):
        work = partial(answered, places)
        got = engine.piece(about, places, work, asked.progress, answers=len(places))
        if got is not None:
            codes[places] = got["codes"]
    return codes
