"""Measures of alignment: the golden fixture of the protocol, peer libraries, and what holds for any data."""

import math
from itertools import combinations

import dcor
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import kendalltau, spearmanr

from affectbench.alignment import kendall, kernels
from affectbench.alignment.metrics import (
    MEASURES,
    lag_side,
    lag_taken_out,
    measure,
)
from affectbench.alignment.rdm import ranks, rdm
from affectbench.errors import AffectbenchError

T = np.arange(1, 9)[:, None]
X = np.sin(0.7 * T * np.arange(1, 4))
Y = np.cos(0.3 * T * np.arange(2, 6)) + 0.5 * X[:, [0, 1, 2, 0]]
EVERY = [
    pytest.param(found, id=f"{which}-{name}")
    for which, named in MEASURES.items()
    for name, found in named.items()
]


BIAS_OF = (
    ("cka_linear", "paper"), ("cka_linear", "debiased"), ("dcor_squared", "paper"),
    ("dcor_squared", "debiased"), ("hsic_rbf", "paper"), ("rsa_spearman", "paper"),
)  # fmt: skip
BIAS = (
    (12, 12, 60, 0.65, 0.02, 0.87, 0.02, 0.0143, 0.01),
    (50, 20, 60, 0.40, 0.00, 0.71, 0.00, 0.0032, 0.00),
    (150, 20, 60, 0.18, 0.00, 0.46, 0.00, 0.0010, 0.00),
    (300, 20, 128, 0.14, 0.00, 0.36, 0.00, 0.0005, 0.00),
)
TRUE_DCOR = {12: 0.93, 50: 0.84, 150: 0.68, 300: 0.60}


def pairwise_tau(a: np.ndarray, b: np.ndarray) -> float:
    """Tau-b by its definition; SciPy's where it has no quarrel with so few values."""
    if len(a) > 4:
        return float(kendalltau(a, b).statistic)
    signs = np.array([np.sign([a[i] - a[j], b[i] - b[j]]) for i, j in combinations(range(len(a)), 2)])
    return float(signs.prod(axis=1).sum() / math.sqrt(np.prod((signs != 0).sum(axis=0))))


class TestGolden:
    @pytest.mark.parametrize(
        ("name", "estimator", "value"),
        [
            ("cka_linear", "paper", 0.638128),
            ("rv", "paper", 0.638128),
            ("cka_linear", "debiased", 0.401339),
            ("dcor_squared", "paper", 0.821441),
            ("dcor_squared", "debiased", 0.407371),
            ("pairwise_mi", "paper", 0.140054),
            ("rsa_spearman", "paper", 0.304871),
            ("rsa_pearson", "paper", 0.406013),
            ("tau_b", "paper", 0.185185),
            ("hsic_rbf", "paper", 0.0269472),
            ("cka_rbf", "paper", 0.709095),
        ],
    )
    def test_measures(self, name: str, estimator: str, value: float) -> None:
        assert measure(name, estimator)(X, Y) == pytest.approx(value, abs=6e-7)  # type: ignore[arg-type]

    def test_the_fixture_itself(self) -> None:
        assert X[0] == pytest.approx([0.644218, 0.985450, 0.863209], abs=1e-6)
        assert Y[0] == pytest.approx([1.147444, 1.114335, 0.793962, 0.392846], abs=1e-6)
        assert rdm(X)[:3] == pytest.approx([1.492238, 1.984511, 1.508271], abs=1e-6)
        assert rdm(Y)[:3] == pytest.approx([0.394312, 1.388742, 1.930963], abs=1e-6)
        assert len(set(rdm(X))) == len(set(rdm(Y))) == 28

    def test_distance_correlation_and_the_measure_once_called_kendall(self) -> None:
        """The true distance correlation is the root of what is released under its name."""
        assert measure("dcor_squared", "paper")(X, Y) ** 0.5 == pytest.approx(0.906334, abs=6e-7)
        signs = [np.sign(each - each.mean()) for each in (rdm(X), rdm(Y))]
        assert (signs[0] * signs[1]).mean() == pytest.approx(0.571429, abs=6e-7)

    def test_bandwidths(self) -> None:
        squares = [kernels.squared_distances(series) for series in (X, Y)]
        assert [kernels.bandwidth(s, "usual") for s in squares] == pytest.approx([4.174260, 6.296129])
        assert [kernels.bandwidth(s, "lower") for s in squares] == pytest.approx([4.135633, 6.125810])

    def test_kernels_with_the_usual_median(self) -> None:
        first, second = (kernels.double_centred(kernels.rbf_gram(series)) for series in (X, Y))
        assert (first * second).sum() / 49 == pytest.approx(0.0262806, abs=6e-8)
        cka = (first * second).sum() / np.linalg.norm(first) / np.linalg.norm(second)
        assert cka == pytest.approx(0.708106, abs=6e-7)


class TestOracles:
    @pytest.fixture
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(4)
        x = rng.normal(size=(23, 6))
        return x, x[:, :4] @ rng.normal(size=(4, 9)) + rng.normal(size=(23, 9))

    def test_distance_correlation_of_dcor(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        x, y = pair
        root = measure("dcor_squared", "paper")(x, y) ** 0.5
        assert root == pytest.approx(dcor.distance_correlation(x, y), abs=1e-12)
        ours = measure("dcor_squared", "debiased")(x, y)
        assert ours == pytest.approx(dcor.u_distance_correlation_sqr(x, y), abs=1e-12)

    def test_rsatoolbox(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        rsatoolbox = pytest.importorskip("rsatoolbox")
        first, second = (
            rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(series), method="correlation") for series in pair
        )
        assert rdm(pair[0]) == pytest.approx(first.dissimilarities[0], abs=1e-12)
        for name, method in (("rsa_pearson", "corr"), ("rsa_spearman", "spearman"), ("tau_b", "kendall")):
            theirs = rsatoolbox.rdm.compare(first, second, method=method)[0, 0]
            assert measure(name, "debiased")(*pair) == pytest.approx(theirs, abs=1e-10)
        first, second = (
            rsatoolbox.rdm.calc_rdm(rsatoolbox.data.Dataset(series), method="euclidean") for series in pair
        )
        theirs = rsatoolbox.rdm.compare(first, second, method="cosine_cov")[0, 0]
        assert measure("cka_linear", "paper")(*pair) == pytest.approx(theirs, abs=1e-10)

    def test_kendall_against_counting_all_pairs(self) -> None:
        rng = np.random.default_rng(0)
        a, b = rng.integers(0, 9, 40).astype(float), rng.integers(0, 9, 40).astype(float)
        signs = np.array(
            [[np.sign(a[i] - a[j]), np.sign(b[i] - b[j])] for i, j in combinations(range(40), 2)]
        )
        product = signs.prod(axis=1).sum()
        assert kendall.tau_b(ranks(a), ranks(b)) == pytest.approx(
            product / math.sqrt(np.prod((signs != 0).sum(axis=0)))
        )

    @pytest.mark.parametrize("compiled", [True, False])
    @pytest.mark.parametrize("size", [2, 3, 4, 5, 8, 9, 33, 500])
    def test_kendall_of_scipy_with_and_without_its_compiled_part(
        self, size: int, compiled: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not compiled:
            monkeypatch.setattr(kendall, "_compiled", lambda: None)
        rng = np.random.default_rng(size)
        for _ in range(5):
            a, b = rng.normal(size=size), rng.normal(size=size)
            b += 0.5 * a
            tied = np.round(b, 0) + np.where(np.arange(size) == 0, 9.0, 0.0)
            for other in (b, tied):
                expected = pairwise_tau(a, other)
                assert kendall.tau_b(ranks(a), ranks(other)) == pytest.approx(expected, abs=1e-12)

    def test_inversions_by_counting_them(self) -> None:
        rng = np.random.default_rng(3)
        for size in (1, 2, 7, 64, 65):
            order = rng.permutation(size).astype(np.int32)
            expected = sum(int(order[i] > order[j]) for i, j in combinations(range(size), 2))
            assert kendall.inversions(order) == expected
            assert kendall._counted(order) == expected

    def test_kendall_is_undefined_where_nothing_varies(self) -> None:
        assert np.isnan(kendall.tau_b(ranks(np.ones(6)), ranks(np.arange(6.0))))
        assert np.isnan(kendall.tau_b(np.full(6, np.nan), ranks(np.arange(6.0))))

    def test_unbiased_hsic_by_its_own_formula(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        """Song et al. 2012, equation 5, beside the inner product of U-centred matrices."""
        grams = [kernels.rbf_gram(series) for series in pair]
        hollow = [gram - np.diag(np.diag(gram)) for gram in grams]
        n, ones = 23, np.ones(23)
        k, l_ = hollow
        formula = np.trace(k @ l_) + (ones @ k @ ones) * (ones @ l_ @ ones) / ((n - 1) * (n - 2))
        formula = (formula - 2 / (n - 2) * ones @ k @ l_ @ ones) / (n * (n - 3))
        first, second = (kernels.u_centred(gram) for gram in grams)
        assert (first * second).sum() / (n * (n - 3)) == pytest.approx(formula, abs=1e-14)

    def test_partial_spearman_by_its_formula(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        """Given the number of steps between, and given the time between steps that are not even."""
        uneven = np.cumsum(np.random.default_rng(5).exponential(size=23))
        for times in (np.arange(23.0), uneven):
            a, b, lag = rdm(pair[0]), rdm(pair[1]), pdist(times[:, None])
            ab, al, bl = (float(spearmanr(*two).statistic) for two in ((a, b), (a, lag), (b, lag)))
            expected = (ab - al * bl) / math.sqrt((1 - al**2) * (1 - bl**2))
            sides = [lag_taken_out(series, lag_side(times), "correlation") for series in pair]
            assert sides[0] @ sides[1] == pytest.approx(expected, abs=1e-12)
            if times is not uneven:
                assert measure("rsa_lag_partial", "debiased")(*pair) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("distance", ["correlation", "euclidean", "cosine"])
    def test_rdm_is_that_of_scipy_whatever_the_block(self, distance: str) -> None:
        series = np.random.default_rng(1).normal(size=(31, 5))
        for block in (1, 7, 31, 100):
            found = rdm(series, distance, block=block)  # type: ignore[arg-type]
            assert found == pytest.approx(pdist(series, distance), abs=1e-12)


class TestProperties:
    @pytest.mark.parametrize("found", EVERY)
    def test_degenerate_series_give_nan(self, found: object) -> None:
        rng = np.random.default_rng(0)
        assert math.isnan(found(rng.normal(size=(3, 4)), rng.normal(size=(3, 4))))  # type: ignore[operator]
        assert math.isnan(found(np.ones((9, 4)), rng.normal(size=(9, 4))))  # type: ignore[operator]
        assert math.isnan(found(rng.normal(size=(9, 4)), np.zeros((9, 4))))  # type: ignore[operator]

    @pytest.mark.parametrize("found", EVERY)
    def test_scale_changes_nothing(self, found: object) -> None:
        value = found(X, Y)  # type: ignore[operator]
        assert found(3 * X, 0.2 * Y) == pytest.approx(value, abs=1e-12)  # type: ignore[operator]

    @pytest.mark.parametrize("estimator", ["paper", "debiased"])
    @pytest.mark.parametrize("name", ["cka_linear", "cka_rbf", "dcor_squared"])
    def test_rotations_change_nothing(self, name: str, estimator: str) -> None:
        turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))
        found = measure(name, estimator)  # type: ignore[arg-type]
        assert found(X, Y @ turn) == pytest.approx(found(X, Y), abs=1e-12)

    def test_correlation_rdm_ignores_affine_maps_of_a_step(self) -> None:
        rng = np.random.default_rng(3)
        series = rng.normal(size=(12, 5))
        moved = series * rng.uniform(0.5, 2, (12, 1)) + rng.normal(size=(12, 1))
        assert rdm(moved) == pytest.approx(rdm(series), abs=1e-12)

    @pytest.mark.parametrize("name", ["cka_linear", "cka_rbf", "dcor_squared"])
    @pytest.mark.parametrize(("steps", "p", "q"), [(12, 12, 60), (50, 20, 60), (150, 20, 60)])
    def test_debiased_is_zero_on_noise_where_paper_is_not(
        self, name: str, steps: int, p: int, q: int
    ) -> None:
        rng = np.random.default_rng(5)
        pairs = [(rng.normal(size=(steps, p)), rng.normal(size=(steps, q))) for _ in range(40)]
        debiased = np.array([measure(name, "debiased")(*pair) for pair in pairs])
        assert abs(debiased.mean()) < 4 * debiased.std() / math.sqrt(40) + 1e-3
        biased = np.mean([measure(name, "paper")(*pair) for pair in pairs])
        assert biased > debiased.mean() + 0.1

    @pytest.mark.slow
    @pytest.mark.parametrize("row", BIAS, ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
    def test_the_bias_of_every_estimator_is_that_of_the_protocol(self, row: tuple[float, ...]) -> None:
        """Means of 40 runs on independent Gaussian data, to its digits and the error of a mean."""
        steps, p, q = map(int, row[:3])
        rng = np.random.default_rng(6)
        pairs = [(rng.normal(size=(steps, p)), rng.normal(size=(steps, q))) for _ in range(40)]
        for (name, estimator), expected in zip(BIAS_OF, row[3:], strict=True):
            found = np.array([measure(name, estimator)(*pair) for pair in pairs])
            if name == "dcor_squared" and estimator == "paper":
                true = np.sqrt(found).mean()
                assert true == pytest.approx(TRUE_DCOR[steps], abs=0.006 + 6 * np.sqrt(found).std() / 40**0.5)
            digits = 6e-5 if name == "hsic_rbf" else 0.006
            assert found.mean() == pytest.approx(expected, abs=digits + 6 * found.std() / 40**0.5), name

    def test_rv_is_linear_cka(self) -> None:
        assert measure("rv", "paper")(X, Y) == pytest.approx(measure("cka_linear", "paper")(X, Y), abs=1e-14)


def test_bad_requests_say_what_is_wrong() -> None:
    with pytest.raises(AffectbenchError, match="8 and 7 time steps"):
        measure("rsa_pearson", "paper")(X, Y[:7])
    with pytest.raises(AffectbenchError, match="did you mean 'tau_b'"):
        measure("tau", "debiased")
    with pytest.raises(AffectbenchError, match="not finite"):
        measure("cka_rbf", "debiased")(np.where(X > 0.9, np.nan, X), Y)
