"""Statistics, the worst and dependent blocks in whole evaluations, kept and sketched."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import SEEDS, SINGLE, Array, Case, Cut, any_cases, cases, cutting, evaluated, repeatable, run
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli import evaluate
from kldiv_cli.errors import UsageError
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.spec import QUANTILES
from kldiv_cli.statistics import percentile_name

SKETCHED = Cut(limit=0)


def losses_of(case: Case) -> Array:
    """The losses that statistics are made of, in order, added up by NumPy from the map."""
    outcome = run(case.options, case.inputs())
    assert outcome.map is not None
    if case.kind.losses == ("bce",):
        return outcome.map.ravel()
    rows = np.ascontiguousarray(np.moveaxis(outcome.map, case.axis, -1))
    return np.asarray(rows.sum(axis=-1)).ravel()


@repeatable(60)
@given(cases(SINGLE, special=False))
def test_statistics_are_those_of_numpy_of_the_losses_of_the_map(case: Case) -> None:
    losses = losses_of(case)
    found = run(case.options, case.inputs()).evaluations[0].statistics
    assert (found.of, found.exact) == ("elements" if case.kind.losses == ("bce",) else "distributions", True)
    assert (found.count, found.minimum, found.maximum) == (losses.size, losses.min(), losses.max())
    assert found.mean == math.fsum(losses.tolist()) / losses.size
    quantiles = sorted({*QUANTILES, *case.options["quantiles"]})
    expected = {percentile_name(q): float(np.quantile(losses, q)) for q in quantiles}
    assert found.percentiles == expected
    if losses.size > 1:
        error = float(losses.std(ddof=1)) / math.sqrt(losses.size)
        assert found.standard_error == pytest.approx(error, rel=1e-9, abs=1e-15 * float(abs(losses).max()))


@repeatable(60)
@given(cases(SINGLE, special=False))
def test_the_mean_of_the_statistics_is_the_mean_of_what_they_are_of(case: Case) -> None:
    (evaluation,) = run(case.options, case.inputs()).evaluations
    mean = evaluation.distmean if evaluation.loss == "kl" else evaluation.mean
    assert evaluation.statistics.mean == mean


def assert_sketches(sketched: Evaluation, kept: Evaluation) -> None:
    """All but percentiles as exactly as from all values, percentiles within half a bin."""
    ours, theirs = sketched.statistics, kept.statistics
    assert (ours.of, ours.count, ours.histogram) == (theirs.of, theirs.count, theirs.histogram)
    assert repr(ours.mean) == repr(theirs.mean)
    np.testing.assert_array_equal([ours.minimum, ours.maximum], [theirs.minimum, theirs.maximum])
    scale = max(abs(theirs.minimum), abs(theirs.maximum))
    if math.isfinite(scale):
        assert ours.standard_error == pytest.approx(theirs.standard_error, rel=1e-14, nan_ok=True)
    assert ours.percentiles.keys() == theirs.percentiles.keys()
    for name, value in theirs.percentiles.items():
        reach = 2.0**-11 * scale if math.isfinite(scale) else 0.0
        if math.isfinite(scale) or math.isnan(value):
            assert ours.percentiles[name] == pytest.approx(value, rel=2.0**-11, abs=reach, nan_ok=True)
    assert kept.worst == sketched.worst or repr(kept.worst) == repr(sketched.worst)
    assert (ours.exact, theirs.exact) == (ours.count == 0, True)


@repeatable(60)
@given(any_cases())
def test_too_many_values_are_sketched_and_everything_else_is_the_same(case: Case) -> None:
    kept, sketched = run(case.options, case.inputs()), run(case.options, case.inputs(), cut=SKETCHED)
    for ours, theirs in zip(sketched.evaluations, kept.evaluations, strict=True):
        assert_sketches(ours, theirs)
        assert repr((ours.scalars, ours.by_target, ours.findings)) == repr(
            (theirs.scalars, theirs.by_target, theirs.findings)
        )
        mine, other = ours.statistics.blocks, theirs.statistics.blocks
        if mine is not None and other is not None:
            assert mine[:2] == other[:2]
            scale = max(abs(theirs.statistics.minimum), abs(theirs.statistics.maximum))
            if math.isfinite(scale):
                assert mine.standard_error == pytest.approx(
                    other.standard_error, rel=1e-9, abs=1e-13 * scale, nan_ok=True
                )


def test_the_number_of_values_decides_what_is_kept() -> None:
    x = np.log(np.full((4, 2), 0.5))
    for limit, exact in ((4, True), (3, False)):
        with cutting(Cut(limit=limit)):
            assert evaluate(x, np.exp(x)).statistics.exact is exact


def test_two_losses_share_the_memory_for_what_is_kept() -> None:
    p, y = np.full((4, 2), 0.25), np.full((4, 2), 0.5)
    outcome = run(
        {"losses": ("kl", "bce"), "predictions_are": "probs"},
        {"predictions": p, "targets": y},
        cut=Cut(limit=8),
    )
    assert [evaluation.statistics.exact for evaluation in outcome.evaluations] == [True, False]
    assert [evaluation.statistics.count for evaluation in outcome.evaluations] == [4, 8]


# The worst


@repeatable(60)
@given(cases(SINGLE, special=False), st.integers(1, 100), st.sampled_from([Cut(), SKETCHED]))
def test_the_worst_are_the_largest_with_their_indices(case: Case, size: int, cut: Cut) -> None:
    losses = losses_of(case)
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    if case.kind.losses == ("kl",):
        shape = shape[:axis] + shape[axis + 1 :]
    (evaluation,) = run(case.options | {"worst": size}, case.inputs(), cut=cut).evaluations
    order = sorted(range(losses.size), key=lambda k: (-losses[k], k))[:size]
    expected = [(tuple(int(i) for i in np.unravel_index(k, shape)), losses[k]) for k in order]
    assert [tuple(worst) for worst in evaluation.worst] == expected


def test_the_worst_are_not_listed_unless_asked_for() -> None:
    x = np.log(np.full((4, 2), 0.5))
    assert evaluated(x, np.exp(x)).evaluations[0].worst == ()


def test_the_worst_distribution_of_a_vector_has_no_index() -> None:
    x = np.log(np.array([0.5, 0.5]))
    (worst,) = evaluated(x, np.array([1.0, 0.0]), worst=3).evaluations[0].worst
    assert worst == ((), math.log(2))


# Dependent losses


@repeatable(60)
@given(SEEDS, st.integers(2, 6), st.integers(2, 12), st.sampled_from([Cut(), SKETCHED]))
def test_the_error_of_blocks_is_that_of_the_means_of_texts(
    seed: int, texts: int, tokens: int, cut: Cut
) -> None:
    rng = np.random.default_rng(seed)
    p, q = (rng.dirichlet(np.ones(4), (texts, tokens)) for _ in range(2))
    options = {"predictions_are": "probs", "blocks_of": tokens}
    (evaluation,) = run(options, {"predictions": q, "targets": p}, cut=cut).evaluations
    means = (p * np.log(p / q)).sum(axis=-1).mean(axis=1)
    blocks = evaluation.statistics.blocks
    assert blocks is not None
    assert (blocks.of, blocks.blocks) == (tokens, texts)
    assert blocks.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(texts), rel=1e-10)


def test_masked_tokens_leave_the_blocks_where_they_are() -> None:
    """A block is of places, so that padding at the end of one text moves nothing of the next."""
    rng = np.random.default_rng(6)
    p, q = (rng.dirichlet(np.ones(4), (3, 4)) for _ in range(2))
    mask = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 0, 1]])
    losses = np.where(mask, (p * np.log(p / q)).sum(axis=-1), 0.0)
    for cut in (Cut(), SKETCHED):
        options = {"predictions_are": "probs", "blocks_of": 4, "mask": True}
        (evaluation,) = run(options, {"predictions": q, "targets": p, "mask": mask}, cut=cut).evaluations
        blocks = evaluation.statistics.blocks
        assert blocks is not None
        means = losses[[0, 2]].sum(axis=1) / 3
        assert blocks.blocks == 2
        assert blocks.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(2), rel=1e-10)


def test_blocks_of_bce_are_of_elements() -> None:
    p, y = np.full((2, 6), 0.25), np.tile([0.0, 0.0, 0.0, 1.0, 1.0, 1.0], (2, 1))
    blocks = evaluated(p, y, losses=("bce",), blocks_of=3).evaluations[0].statistics.blocks
    means = -np.log([0.75, 0.25, 0.75, 0.25])
    assert blocks is not None
    assert blocks.blocks == 4
    assert blocks.standard_error == pytest.approx(means.std(ddof=1) / 2, rel=1e-12)


def test_there_are_no_blocks_unless_asked_for() -> None:
    x = np.log(np.full((4, 2), 0.5))
    assert evaluated(x, np.exp(x)).evaluations[0].statistics.blocks is None


def test_too_many_blocks_are_refused_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.statistics._MOST_GROUPS", 2)
    x = np.log(np.full((9, 2), 0.5))
    with cutting(SKETCHED), pytest.raises(UsageError, match=r"blocks_of 3: .*take 5 or more"):
        evaluate(x, np.exp(x), blocks_of=3)


@pytest.mark.parametrize("quantiles", [(0.5,), (0.25, 0.75), ()])
def test_findings_and_scalars_do_not_depend_on_what_is_told_beside_them(quantiles: tuple[float, ...]) -> None:
    x = np.log(np.array([[0.5, 0.5], [1.0, 1e-300]]))
    plain = evaluate(x, np.exp(x[::-1]))
    told = evaluate(x, np.exp(x[::-1]), quantiles=quantiles, worst=2, blocks_of=2)
    assert (plain.scalars, plain.findings) == (told.scalars, told.findings)
