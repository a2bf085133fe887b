"""The fixed interface of selectors, and the `Selection` they return.

A selector is one file in ``selectors/`` with one subclass of `Selector`. Most only turn evidence into scores:

    class Spread(Selector):
        "Standard deviation over emotions of the mean activation."
        name = "spread"
        needs = frozenset({"mean"})

        def scores(self, study):
            return np.repeat(study.evidence.mean.std(axis=0, keepdims=True), len(study.labels), axis=0)
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from affectbench.errors import AffectbenchError
from affectbench.sites import CHANNEL_SITES, SITES, FloatArray, Kind, SiteShape, UnitArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from affectbench.study import Study

TIE_RULE = "score descending, then (layer, unit) ascending"


@dataclass(frozen=True)
class Selection:
    """Ranked units for each emotion: the claim that is put to the test.

    `units` holds one array of flat indices for each label, best first; `scores` (emotions, units of the
    site) are the scores behind the ranking, or None where only the units are known. `vectors`: for each label
    a row (channels of its units,), unit by unit: what a protocol that adds adds to them at dose 1, and one
    that projects takes out; None where that is the difference of means. `items` names the items the units
    were found on, where they are known; they are no part of what the selection claims.
    """

    site: str
    shape: SiteShape
    labels: tuple[str, ...]
    units: tuple[UnitArray, ...]
    scores: FloatArray | None = None
    items: tuple[str, ...] = ()
    vectors: tuple[FloatArray, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.units) != len(self.labels):
            raise AffectbenchError(
                f"the selection has {len(self.units)} sets of units for {len(self.labels)} emotions",
                hint=f"one set each, in this order: {', '.join(self.labels)}",
            )
        for label, units in zip(self.labels, self.units, strict=True):
            if not isinstance(units, np.ndarray) or units.ndim != 1 or units.dtype.kind not in "iu":
                kind = type(units).__name__
                found = f"{kind} {units.dtype} {units.shape}" if isinstance(units, np.ndarray) else kind
                raise AffectbenchError(
                    f"selection for {label!r}: units are {found}, not one row of whole numbers",
                    hint="flat unit indices, best first: np.array([...], dtype=np.int64)",
                )
            self.shape.check(units, f"selection for {label!r}")
        if self.scores is not None and self.scores.shape != (len(self.labels), self.shape.units):
            raise AffectbenchError(
                f"the selection's scores have shape {self.scores.shape}",
                hint=f"expected {(len(self.labels), self.shape.units)}: (emotions, units of the site)",
            )
        self._check_vectors()

    def _check_vectors(self) -> None:
        if self.vectors is None:
            return
        if len(self.vectors) != len(self.labels):
            raise AffectbenchError(
                f"the selection has vectors for {len(self.vectors)} emotions, not {len(self.labels)}",
                hint="one row each, in the order of the labels",
            )
        for label, units, row in zip(self.labels, self.units, self.vectors, strict=True):
            expected = int(self.shape.sizes(units).sum())
            if row.shape != (expected,) or not np.isfinite(row).all():
                raise AffectbenchError(
                    f"selection for {label!r}: vectors of shape {row.shape}, or values that are not finite",
                    hint=f"one row of {expected} numbers: the channels of its units, unit by unit",
                )

    @classmethod
    def from_scores(
        cls, scores: FloatArray, budget: int, *, site: str, shape: SiteShape, labels: tuple[str, ...]
    ) -> Selection:
        """The `budget` best units of each emotion by `scores` (emotions, layers, units).

        Ties go to the lower (layer, unit). A score of -inf excludes a unit, so a set may be smaller than
        the budget. Raises `AffectbenchError` for a wrong shape or NaN.
        """
        expected = (len(labels), shape.layers, shape.width)
        scores = np.asarray(scores, dtype=np.float64)
        if scores.shape != expected:
            raise AffectbenchError(
                f"the selector returned scores of shape {scores.shape}",
                hint=f"expected {expected}: (emotions, layers, units)",
            )
        if np.isnan(scores).any() or np.isposinf(scores).any():
            bad = int(np.isnan(scores).sum() + np.isposinf(scores).sum())
            raise AffectbenchError(
                f"the selector returned {bad} scores that are NaN or +inf", hint="use -inf to exclude a unit"
            )
        flat = scores.reshape(len(labels), -1)
        units = []
        for row in flat:
            best = np.argsort(-row, kind="stable")[:budget]
            units.append(best[np.isfinite(row[best])].astype(np.int64))
        return cls(site, shape, labels, tuple(units), flat)

    def check_budget(self, budget: int) -> None:
        """Raise `AffectbenchError` where an emotion has more than `budget` units, or none has any."""
        for label, units in zip(self.labels, self.units, strict=True):
            if units.size > budget:
                raise AffectbenchError(
                    f"{units.size} units for {label!r} exceed the budget of {budget}",
                    hint="the protocol's `fractions` fix the budget: at most that many units an emotion",
                )
        if not any(units.size for units in self.units):
            raise AffectbenchError("the selection is empty", hint="return at least one unit for one emotion")

    @property
    def digest(self) -> str:
        """Content hash (16 hex) of site, labels and ranked units."""
        digest = hashlib.sha256(f"{self.site} {self.shape.layers}x{self.shape.width}".encode())
        for label, units in zip(self.labels, self.units, strict=True):
            digest.update(f"\n{label}:".encode())
            digest.update(np.ascontiguousarray(units, dtype="<i8").tobytes())
        for row in self.vectors or ():
            digest.update(b"\nvectors:" + np.ascontiguousarray(row, dtype="<f8").tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        """Write as safetensors whose metadata is the JSON header; scores are kept as float32."""
        from safetensors.numpy import save

        from affectbench.store import write_atomically

        tensors = {f"units.{place}": units for place, units in enumerate(self.units)}
        if self.scores is not None:
            tensors["scores"] = self.scores.astype(np.float32)
        for place, row in enumerate(self.vectors or ()):
            tensors[f"vectors.{place}"] = row.astype(np.float64)
        header: dict[str, Any] = {
            "site": self.site,
            "layers": self.shape.layers,
            "width": self.shape.width,
            "labels": list(self.labels),
            "digest": self.digest,
        }
        if self.shape.size > 1:
            header["size"] = self.shape.size
        if self.shape.kinds:
            header["kinds"] = [list(kind) for kind in self.shape.kinds]
        if self.shape.parameters:
            header["parameters"] = list(self.shape.parameters)
        if self.items:
            header["items"] = list(self.items)
        write_atomically(path, save(tensors, metadata={"selection": json.dumps(header)}))

    @classmethod
    def load(cls, path: Path, *, most: int | None = None) -> Selection:
        """Read a saved selection; with `most`, refuse more units an emotion than that before reading them.

        Raises `AffectbenchError` where the file is no selection, is damaged, or was edited.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as stream:
                header = _header(path, stream.metadata())
                names = [f"units.{place}" for place in range(len(header["labels"]))]
                for label, name in zip(header["labels"], names, strict=True):
                    count = math.prod(stream.get_slice(name).get_shape())
                    if most is not None and count > most:
                        raise AffectbenchError(
                            f"{path}: {count} units for {label!r} exceed the budget of {most}",
                            hint="keep the best ones, at most that many an emotion",
                        )
                units = tuple(stream.get_tensor(name) for name in names)
                there = set(stream.keys())
                scores = stream.get_tensor("scores").astype(np.float64) if "scores" in there else None
                rows = [f"vectors.{place}" for place in range(len(names))]
                vectors = None
                if "vectors.0" in there:
                    vectors = tuple(stream.get_tensor(name).astype(np.float64) for name in rows)
        except (OSError, SafetensorError, TypeError, ValueError) as error:
            raise AffectbenchError(
                f"{path}: not a selection: {error}",
                hint="a safetensors file, as `Selection.save` writes it",
            ) from error
        kinds = tuple(Kind(*kind) for kind in header.get("kinds", ()))
        parameters = tuple(header.get("parameters", ()))
        shape = SiteShape(header["layers"], header["width"], header.get("size", 1), kinds, parameters)
        items = tuple(header.get("items", ()))
        try:
            selection = cls(header["site"], shape, tuple(header["labels"]), units, scores, items, vectors)
        except AffectbenchError as error:
            raise AffectbenchError(f"{path}: {error.message}", hint=error.hint) from error
        if scores is not None and (np.isnan(scores).any() or np.isposinf(scores).any()):
            raise AffectbenchError(f"{path}: scores hold NaN or +inf", hint="use -inf to exclude a unit")
        if selection.digest != header["digest"]:
            raise AffectbenchError(
                f"{path}: the units do not match the digest", hint="the file is damaged or was edited"
            )
        return selection


def _header(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    """The JSON header of a selection file, every key of the right kind."""

    def texts(value: object) -> bool:
        return isinstance(value, list) and all(isinstance(each, str) and each for each in value)

    try:
        header = json.loads((metadata or {})["selection"])
        sound = (
            header["site"] in SITES
            and all(type(header[name]) is int and header[name] > 0 for name in ("layers", "width"))
            and texts(header["labels"])
            and isinstance(header["digest"], str)
            and texts(header.get("items", []))
            and type(header.get("size", 1)) is int
            and header.get("size", 1) > 0
            and _are_kinds(header.get("kinds", []), header["width"])
            and _are_counts(header.get("parameters", []), header["width"])
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        sound = False
    if not sound:
        raise AffectbenchError(
            f"{path}: not a selection: its JSON header `selection` is missing or incomplete",
            hint=f"site ({', '.join(SITES)}), layers, width, labels, digest: `Selection.save` writes them",
        )
    return dict(header)


def _are_kinds(kinds: object, width: int) -> bool:
    """Whether a header's `kinds` are [site, width, size] each, and fill a layer."""
    if kinds == []:
        return True
    if not isinstance(kinds, list) or not all(isinstance(kind, list) and len(kind) == 3 for kind in kinds):
        return False
    whole = all(type(count) is int and count > 0 for kind in kinds for count in kind[1:])
    return whole and all(kind[0] in SITES for kind in kinds) and sum(kind[1] for kind in kinds) == width


def _are_counts(counts: object, width: int) -> bool:
    """Whether a header's `parameters` are one count for each unit of a layer, where it has any."""
    if counts == []:
        return True
    return (
        isinstance(counts, list)
        and len(counts) == width
        and all(type(count) is int and count > 0 for count in counts)
    )


def above_others(statistic: FloatArray) -> FloatArray:
    """Each emotion's value minus the mean of the other emotions' values; emotions are the first axis."""
    others: FloatArray = (statistic.sum(axis=0) - statistic) / (statistic.shape[0] - 1)
    return statistic - others


class Selector:
    """Base class of selectors: ranks the units of a site for each emotion.

    Override `scores` for a method that gives every unit a number, or `select` for any other. Both must be
    pure given the study and its seed. `needs` names statistics of `affectbench.evidence.STATISTICS`: of the
    protocol's site, or of another one as ``SITE:STATISTIC``. `control`: shows what nothing looks like.
    `shuffled`: a control that reads statistics by permuted labels, as then do the differences that are added.
    `sites`: where it can rank units, written out as a tuple of texts; a protocol of another site leaves it
    out. `whole`: its units are named and not ranked, such as all of a module type: all are taken, whatever
    fraction a protocol asks for.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    control: ClassVar[bool] = False
    shuffled: ClassVar[bool] = False
    whole: ClassVar[bool] = False
    sites: ClassVar[tuple[str, ...]] = CHANNEL_SITES

    def scores(self, study: Study) -> FloatArray:
        """Scores (emotions, layers, units), higher = keep; -inf excludes a unit."""
        raise AffectbenchError(
            f"selector {self.name!r} implements neither `scores` nor `select`", hint="override one of them"
        )

    def select(self, study: Study, budget: int) -> Selection:
        """At most `budget` units for each emotion, best first."""
        return Selection.from_scores(
            self.scores(study), budget, site=study.site, shape=study.shape, labels=study.labels
        )


class _Unusable(Selector):
    """Stands in for a selector that could not be made, so that the reason becomes its cell's result."""

    def __init__(self, reason: BaseException) -> None:
        self.reason = reason

    def select(self, study: Study, budget: int) -> Selection:
        raise self.reason


def usable_selector(name: str, find: Callable[[str], type]) -> Selector:
    """An instance of the class that `find` gives for `name`, or of one whose `select` raises the reason.

    One selector that cannot be imported, made, or given what it needs must not stop the others.
    """
    from affectbench.evidence import requests_of

    try:
        made = find(name)()
        if not isinstance(made, Selector):
            raise AffectbenchError(
                f"its class {type(made).__name__} is no Selector",
                hint="derive it from affectbench.selector.Selector",
            )
        requests_of(made.needs, "", "")
    except (Exception, SystemExit) as error:  # Somebody else's code.
        return _Unusable(error)
    return made
