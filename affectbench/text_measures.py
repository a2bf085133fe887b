"""What is measured of a generated text beside its judgement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from affectbench.stats import FloatArray


class Topicality:
    """How much of what a reply is about is what it replies to: the cosine of TF-IDF vectors.

    Words without English stop words, 1 + log of counts, document frequencies of the scenarios and events of
    the whole task. 0 for a text that shares no word with them.
    """

    def __init__(self, contexts: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectors = TfidfVectorizer(stop_words="english", sublinear_tf=True)
        self._vectors.fit(sorted(set(contexts)))

    def of(self, texts: Sequence[str], contexts: Sequence[str]) -> FloatArray:
        """(N,) cosines in [0, 1] of texts with their contexts."""
        left, right = self._vectors.transform(list(texts)), self._vectors.transform(list(contexts))
        found: FloatArray = np.asarray(left.multiply(right).sum(axis=1), dtype=np.float64).ravel()
        return np.clip(found, 0.0, 1.0)
