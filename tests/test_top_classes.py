"""The top class of each distribution, and how often it is that of the target."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cases import (
    KINDS,
    SEEDS,
    Case,
    Cut,
    any_cases,
    cases,
    counted,
    cuts,
    evaluated,
    repeatable,
    run,
    values_in,
    whole,
)
from hypothesis import assume, event, given
from hypothesis import strategies as st

from kldiv_cli import compare, evaluate
from kldiv_cli.errors import UsageError
from kldiv_cli.estimates import Share, share_of
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.pieces import Rows
from kldiv_cli.selection import Selection
from kldiv_cli.spec import resolve_spec
from kldiv_cli.top_classes import TopFinder, Tops, TopsOfBoth, tops_of

AnyArray = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

INF, NAN = math.inf, math.nan
OF_KL = [kind for kind in KINDS if "kl" in kind.losses]
DTYPES = ["<f2", ">f2", "<f4", ">f4", "<f8", ">f8", "g", "?", "u1", "<i2", ">i4", "<i8", "<u8"]


def values_of(dtype: str, rng: np.random.Generator, shape: tuple[int, ...], special: bool) -> AnyArray:
    """Few different values, so that there are ties; `special` ones have nan, infinities and -0."""
    if np.dtype(dtype).kind != "f":
        info = (0, 1) if dtype == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        return rng.choice(np.array([*info, 1], dtype), shape)
    choices = [-1.0, -0.0, 0.0, 0.5, 2.0, INF, -INF, NAN, -NAN] if special else [-1.5, -0.0, 0.0, 3.0]
    return rng.choice(np.array(choices, dtype), shape)


def top_by_hand(values: list[Any], counts: list[bool]) -> tuple[int, Any]:
    """In plain Python: place and value of the first of the largest that count; nan is above all."""
    best = (-1, None)
    for place, (value, counts_here) in enumerate(zip(values, counts, strict=True)):
        if not counts_here or (best[1] is not None and math.isnan(best[1])):
            continue
        if best[1] is None or math.isnan(value) or value > best[1]:
            best = (place, value)
    return best


def found(tops: Tops) -> list[tuple[int, Any]]:
    pairs = zip(tops.places.tolist(), tops.largest.tolist(), strict=True)
    return [(place, None if place < 0 else value) for place, value in pairs]


def without_nan(pairs: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Where a nan is does not matter, only that there is one."""
    return [(0, "nan") if value is not None and value != value else (place, value) for place, value in pairs]


# The tops of rows


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("special", "masked"), [*itertools.product([False, True], [False, True])])
def test_the_top_is_the_first_of_the_largest_stored_values_that_count(
    dtype: str, special: bool, masked: bool
) -> None:
    rng = np.random.default_rng(3)
    for length in (1, 2, 5, 40):
        values = values_of(dtype, rng, (60, length), special)
        counts = rng.random(values.shape) < 0.5 if masked else np.ones(values.shape, bool)
        expected = [top_by_hand(*row) for row in zip(values.tolist(), counts.tolist(), strict=True)]
        obtained = found(tops_of(values, counted=counts if masked else None))
        assert without_nan(obtained) == without_nan(expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_of_rows_join_to_the_whole(dtype: str) -> None:
    rng = np.random.default_rng(4)
    for length, masked, special in itertools.product((1, 3, 17), (False, True), (False, True)):
        values = values_of(dtype, rng, (80, length), special)
        counts = rng.random(values.shape) < 0.4 if masked else None
        cuts = [0, *sorted(rng.integers(1, length, 2).tolist() if length > 1 else []), length]
        parts = [
            tops_of(values[:, a:b], a, None if counts is None else counts[:, a:b])
            for a, b in itertools.pairwise(cuts)
            if a < b
        ]
        expected = found(tops_of(values, counted=counts))
        assert without_nan(found(functools.reduce(Tops.join, parts))) == without_nan(expected)
        if len(parts) > 2:
            grouped = parts[0].join(functools.reduce(Tops.join, parts[1:]))
            assert without_nan(found(grouped)) == without_nan(expected)


def test_integers_that_a_float64_can_not_tell_apart_have_an_order() -> None:
    values = np.array([[2**53, 2**53 + 1], [2**53 + 1, 2**53]])
    assert tops_of(values).places.tolist() == [1, 0]
    assert tops_of(values[:, :1]).join(tops_of(values[:, 1:], 1)).places.tolist() == [1, 0]


def test_every_float16_has_its_place_in_the_order() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    pairs = np.stack([every, np.roll(every, 12345)], axis=1)
    np.testing.assert_array_equal(tops_of(pairs).places, pairs.astype(np.float64).argmax(axis=1))


def test_rows_of_nan_and_rows_that_nothing_counts_of_have_no_top() -> None:
    values = np.array([[NAN, 1.0], [1.0, NAN], [INF, 0.0], [-INF, -INF], [1.0, 2.0]])
    assert tops_of(values).known(logits=False).tolist() == [False, False, True, True, True]
    assert tops_of(values).known(logits=True).tolist() == [False, False, False, False, True]
    nothing = np.zeros(values.shape, bool)
    assert not tops_of(values, counted=nothing).known(logits=False).any()


@repeatable(60)
@given(SEEDS, st.integers(1, 9), st.integers(1, 30), st.booleans(), st.booleans(), st.booleans())
def test_pieces_of_any_size_give_the_tops_of_the_block(
    seed: int, height: int, width: int, labels: bool, some: bool, masked: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (7, 23)
    predictions = rng.integers(0, 5, shape)
    targets = rng.integers(0, 23, 7) if labels else rng.integers(0, 5, shape).astype("f2")
    chosen = np.flatnonzero(rng.random(7) < 0.6) if some else None
    rows = Rows(3, predictions, targets, None, None, 40, selection=Selection(chosen))
    if masked:
        elements = rng.random(rows.shape) < 0.5
        rows = rows._replace(selection=Selection(chosen, elements))
    finder = TopFinder(resolve_spec(targets_are="labels" if labels else "probs"), rows)
    for top in range(0, rows.shape[0], height):
        for left in range(0, 23, width):
            finder.take(slice(top, min(top + height, rows.shape[0])), slice(left, min(left + width, 23)))
    obtained, looked = finder.tops(), ... if chosen is None else chosen
    expected = tops_of(predictions[looked], 3, rows.selection.elements)
    assert found(obtained.predictions) == found(expected)
    if labels:
        assert obtained.targets.places.tolist() == targets[looked].tolist()
    else:
        assert found(obtained.targets) == found(tops_of(targets[looked], 3, rows.selection.elements))


def test_only_rows_whose_tops_are_known_agree() -> None:
    tops = tops_of(np.array([[0.0, 1.0], [INF, 0.0], [NAN, 0.0], [0.0, 1.0]]))
    both = TopsOfBoth(tops, tops._replace(places=np.array([1, 0, 0, 0])))
    assert both.agreeing(resolve_spec()) == 2
    assert both.agreeing(resolve_spec(predictions_are="logits")) == 1
    assert both.agreeing(resolve_spec(targets_are="logits")) == 1


# Whole evaluations


def top1_by_hand(case: Case) -> Share:
    """By NumPy and plain Python, one distribution after another."""
    axis = case.axis % case.predictions.ndim
    rows = [
        np.moveaxis(array, axis, -1).reshape(-1, case.predictions.shape[axis])
        for array in (case.predictions, counted(case))
    ]
    labels = case.kind.targets == "labels"
    targets = case.targets.ravel() if labels else np.moveaxis(case.targets, axis, -1).reshape(rows[0].shape)
    same, alive = 0, 0
    for predictions, counts, target in zip(*rows, targets, strict=True):
        if not counts.any():
            continue
        alive += 1
        ours = top_by_hand(predictions.tolist(), counts.tolist())
        theirs = (int(target), 0.0) if labels else top_by_hand(target.tolist(), counts.tolist())
        known = not (math.isnan(ours[1]) or math.isnan(theirs[1]))
        for (_, value), space in ((ours, case.kind.predictions), (theirs, case.kind.targets)):
            known &= space != "logits" or math.isfinite(value)
        same += known and ours[0] == theirs[0]
    return share_of(same, alive)


def with_top1(case: Case) -> Case:
    return case._replace(options=case.options | {"top1": True})


def top1_of(case: Case, cut: Cut | None = None, **resources: int) -> Share:
    evaluations = run(case.options, case.inputs(), cut=cut, **resources).evaluations
    (share,) = (evaluation.top1 for evaluation in evaluations if evaluation.loss == "kl")
    assert all(evaluation.top1 is None for evaluation in evaluations if evaluation.loss != "kl")
    assert share is not None
    return share


@repeatable(75)
@given(any_cases(OF_KL), cuts(), st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.5]), SEEDS)
def test_top1_is_that_of_every_distribution_by_hand_however_it_is_cut(
    case: Case, cut: Cut, workers: int, share: float, seed: int
) -> None:
    rng, share = np.random.default_rng(seed), 0.0 if "bce" in case.kind.losses else share  # it refuses nan
    odd = rng.choice(np.array([NAN, INF, 0.0]), case.predictions.shape)
    predictions = np.where(rng.random(odd.shape) < share, odd, case.predictions)
    case = with_top1(case)._replace(predictions=predictions.astype(case.predictions.dtype))
    expected = top1_by_hand(case)
    event(f"some agree: {0 < expected.share < 1}")
    assert repr(top1_of(case, cut, workers=workers)) == repr(expected)


@repeatable(60)
@given(any_cases(OF_KL))
def test_an_axis_gives_what_moving_it_to_the_end_gives(case: Case) -> None:
    axis, labels = case.axis % case.predictions.ndim, case.kind.targets == "labels"
    shape = case.predictions.shape
    moved = {
        name: array if labels and name == "targets" else np.moveaxis(array, axis, -1)
        for name, array in case.inputs().items()
        if name != "mask"
    }
    if case.mask is not None:
        form = np.expand_dims(case.mask, axis) if case.mask.ndim < len(shape) else case.mask
        moved["mask"] = np.moveaxis(np.broadcast_to(form, shape), axis, -1)
    case = with_top1(case)
    softmax = {"log_softmax": -1 if case.kind.softmax else None}
    options = case.options | {"axis": -1} | softmax
    shares = [e.top1 for e in run(options, moved).evaluations if e.top1 is not None]
    assert repr(shares) == repr([top1_of(case)])


@repeatable(60)
@given(cases(OF_KL), SEEDS)
def test_masked_distributions_give_what_is_computed_without_them(case: Case, seed: int) -> None:
    assume(case.predictions.ndim > 1 and case.axis % case.predictions.ndim > 0)
    chosen = np.random.default_rng(seed).random(len(case.predictions)) < 0.6
    axis, shape = case.axis % case.predictions.ndim, case.predictions.shape
    mask = np.broadcast_to(chosen.reshape(-1, *[1] * (len(shape) - 2)), shape[:axis] + shape[axis + 1 :])
    case = with_top1(case)
    masked = case._replace(mask=mask, options=case.options | {"mask": True})
    alone = case._replace(predictions=case.predictions[chosen], targets=case.targets[chosen])
    assert repr(top1_of(masked)) == repr(top1_of(alone))


def test_classes_that_are_masked_are_no_top() -> None:
    p, y = np.array([[0.1, 0.3, 0.6]]), np.array([[0.5, 0.3, 0.2]])
    options: dict[str, Any] = {"predictions_are": "probs", "top1": True}
    assert evaluated(p, y, **options).evaluations[0].top1 == share_of(0, 1)
    mask = np.array([[0, 1, 1]])
    assert evaluated(p, y, mask=mask, **options).evaluations[0].top1 == share_of(0, 1)
    mask = np.array([[0, 1, 0]])
    assert evaluated(p, y, mask=mask, **options).evaluations[0].top1 == share_of(1, 1)


@pytest.mark.parametrize("labels", ["u1", "<i8", ">i4"])
def test_of_labels_it_is_the_accuracy(labels: str) -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((50, 3, 7)).astype("f4"), rng.integers(0, 3, (50, 7))
    found = evaluate(x, y.astype(labels), log_softmax=1, targets_are="labels", top1=True).top1
    assert found == share_of(int((x.argmax(axis=1) == y).sum()), 350)


def test_ignored_labels_are_not_in_the_divisor() -> None:
    x, y = np.eye(4), np.array([0, -100, 2, 0])
    found = evaluate(x, y, log_softmax=-1, targets_are="labels", ignore_value=-100, top1=True).top1
    assert found == share_of(2, 3)


@pytest.mark.parametrize(("ours", "theirs"), [*itertools.product(["logits", "log-probs", "probs"], repeat=2)])
@pytest.mark.parametrize("odd", [0.0, 0.05])
def test_it_is_what_compare_tells_of_the_same_arrays(ours: str, theirs: str, odd: float) -> None:
    """Of logits of inf and of distributions that are all ruled out, too."""
    rng = np.random.default_rng(6)
    x, y = (values_in(space, rng, (400, 9), -1, odd=bool(odd)) for space in (ours, theirs))
    for array, space in ((x, ours), (y, theirs)):
        array[rng.random(array.shape) < odd] = NAN
        if space == "logits":
            array[rng.random(array.shape) < odd / 2] = INF
            array[rng.random(len(array)) < odd] = -INF
    x[:40] = y[:40] if ours == theirs else x[:40]
    expected = compare(y, x, reference_are=theirs, candidate_are=ours).same_top
    found = evaluate(x, y, predictions_are=ours, targets_are=theirs, top1=True).top1
    assert found == expected
    assert found.count


def test_of_equal_values_the_first_is_the_top() -> None:
    p = np.full((2, 3), 1 / 3)
    y = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    assert evaluate(p, y, predictions_are="probs", top1=True).top1 == share_of(1, 2)


def test_the_temperature_changes_no_top() -> None:
    rng = np.random.default_rng(7)
    x, y = rng.standard_normal((2, 60, 5))
    shares = [
        evaluate(x, y, log_softmax=-1, targets_are="logits", temperature=t, top1=True).top1
        for t in (None, 0.3, 4.0)
    ]
    assert shares == [share_of(int((x.argmax(1) == y.argmax(1)).sum()), 60)] * 3


def test_broadcast_and_trimmed_inputs_have_the_tops_of_what_is_compared() -> None:
    rng = np.random.default_rng(8)
    p, y = rng.random((30, 6)), rng.random((1, 6))
    found = evaluate(p, y, predictions_are="probs", broadcast=True, top1=True).top1
    assert found == share_of(int((p.argmax(1) == y.argmax()).sum()), 30)
    wide = np.concatenate([p, np.full((30, 3), 2.0)], axis=1)
    trimmed = evaluate(wide, p, predictions_are="probs", trim_axis=True, top1=True).top1
    assert trimmed == share_of(30, 30)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8"])
@pytest.mark.parametrize("axis", [0, 1])
def test_huge_distributions_have_the_tops_of_all_their_windows(dtype: str, axis: int) -> None:
    """With the sizes the package has; ties lie in different windows."""
    rng = np.random.default_rng(9)
    length = 21 * SEGMENT + 77
    x, y = (rng.integers(-300, 300, (4, length)) / 64 for _ in range(2))
    x[2] = y[2]
    y[3, [5, length - 1]] = x[3, [5, length - 1]] = 90.0
    x, y = (np.moveaxis(array, 1, axis).astype(dtype) for array in (x, y))
    same = int((x.argmax(axis=axis) == y.argmax(axis=axis)).sum())
    options = {"axis": axis, "predictions_are": "logits", "targets_are": "logits", "top1": True}
    for workers in (1, 2):
        outcome = run(
            options, {"predictions": x, "targets": y}, cut=Cut(largest=16 * SEGMENT), workers=workers
        )
        assert len(outcome.steps) > 1
        assert outcome.evaluations[0].top1 == share_of(same, 4)
    assert same >= 2


@pytest.mark.parametrize(
    ("shape", "expected"), [((0, 4), share_of(0, 0)), ((3, 0), share_of(0, 3)), ((4,), share_of(1, 1))]
)
def test_empty_arrays_and_vectors_have_a_share_of_what_distributions_there_are(
    shape: tuple[int, ...], expected: Share
) -> None:
    p = np.ones(shape) / 4
    assert repr(evaluate(p, p, predictions_are="probs", top1=True).top1) == repr(expected)


def test_nothing_that_counts_has_a_share_of_nan() -> None:
    p = np.full((3, 2), 0.5)
    (evaluation,) = evaluated(p, p, predictions_are="probs", mask=np.zeros(3, bool), top1=True).evaluations
    assert repr(evaluation.top1) == repr(share_of(0, 0))


@repeatable(40)
@given(any_cases(OF_KL), cuts())
def test_to_ask_for_it_changes_nothing_else(case: Case, cut: Cut) -> None:
    cut = whole(cut)
    plain = run(case.options | {"top1": False}, case.inputs(), cut=cut)
    asked = run(case.options | {"top1": True}, case.inputs(), cut=cut)
    assert [e.top1 for e in plain.evaluations] == [None] * len(plain.evaluations)
    assert [e[:-1] for e in asked.fingerprint[:-1]] == [e[:-1] for e in plain.fingerprint[:-1]]


def test_bce_alone_has_none() -> None:
    with pytest.raises(UsageError, match=r"top1: bce .* add --loss kl or drop it"):
        resolve_spec(losses=("bce",), top1=True)
    assert resolve_spec(losses=("bce", "kl"), predictions_are="probs", top1=True).top1
