from __future__ import annotations

import itertools
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cases import (
    KINDS,
    LIMITS,
    SEEDS,
    SINGLE,
    WINDOWED,
    AnyArray,
    Case,
    Cut,
    Kind,
    MapArray,
    Outcome,
    any_cases,
    bits,
    cases,
    cuts,
    cutting,
    drop,
    evaluated,
    finding,
    read_only,
    repeatable,
    run,
    shapes,
    spelled,
    stored,
    strided,
    swapped,
    values_in,
    whole,
)
from hypothesis import assume, event, given
from hypothesis import strategies as st
from scipy.special import expit, softmax  # type: ignore[import-untyped]

from kldiv_cli.blocks import Block
from kldiv_cli.budget import Resources
from kldiv_cli.errors import AxisError, DomainError, FormatError, ShapeMismatch, UsageError
from kldiv_cli.evaluation import evaluate_sources
from kldiv_cli.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    kl_div,
    log_softmax,
)
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.sources import ArraySource, Inputs, open_source
from kldiv_cli.spec import resolve_spec

# Nothing changes a bit


@repeatable(75)
@given(any_cases(), cuts(), st.integers(1, 3))
def test_block_size_and_workers_change_no_bit(case: Case, cut: Cut, workers: int) -> None:
    expected = run(case.options, case.inputs(), cut=whole(cut), workers=1)
    obtained = run(case.options, case.inputs(), cut=cut, workers=workers)
    event(f"several blocks: {len(obtained.steps) > 1}")
    assert obtained.fingerprint == expected.fingerprint


@repeatable(50)
@given(any_cases(WINDOWED), st.data())
def test_a_distribution_larger_than_a_block_is_read_in_windows_to_the_same_bits(
    case: Case, data: st.DataObject
) -> None:
    length = case.predictions.shape[case.axis]
    assume(length > 1)
    segment = data.draw(st.integers(1, length - 1))
    budget = segment * data.draw(st.integers(1, (length - 1) // segment))
    cut = Cut(segment, data.draw(st.integers(1, 60)), budget, budget, data.draw(LIMITS))
    expected = run(case.options, case.inputs(), cut=whole(cut), workers=1)
    obtained = run(case.options, case.inputs(), cut=cut, workers=data.draw(st.integers(1, 3)))
    assert len(obtained.steps) > 1
    assert obtained.fingerprint == expected.fingerprint


@repeatable(60)
@given(any_cases(), cuts(), st.integers(1, 3), st.floats(1.0, 4.0))
def test_the_memory_limit_changes_no_bit(case: Case, cut: Cut, workers: int, factor: float) -> None:
    cut = cut._replace(piece=1, largest=1 << 20)
    with pytest.raises(UsageError) as refusal:
        run(case.options, case.inputs(), cut=cut, memory=0)
    memory = int(factor * workers * int(str(refusal.value).split("at least ")[1].split()[0]))
    expected = run(case.options, case.inputs(), cut=whole(cut), workers=1)
    obtained = run(case.options, case.inputs(), cut=cut, workers=workers, memory=memory)
    event(f"several blocks: {len(obtained.steps) > 1}")
    assert obtained.fingerprint == expected.fingerprint


@repeatable(60)
@given(any_cases(), cuts(), st.data())
def test_storage_order_and_byte_order_change_no_bit(case: Case, cut: Cut, data: st.DataObject) -> None:
    kinds: list[Callable[[AnyArray], AnyArray]] = [np.asfortranarray, strided, swapped, read_only]
    orders = st.sampled_from(kinds)
    inputs = {name: data.draw(orders)(array).reshape(array.shape) for name, array in case.inputs().items()}
    obtained = run(case.options, inputs, cut=cut, workers=data.draw(st.integers(1, 3)))
    assert obtained.fingerprint == run(case.options, case.inputs(), cut=whole(cut)).fingerprint


@repeatable(60)
@given(any_cases(), cuts(), st.data())
def test_the_file_format_changes_no_bit(case: Case, cut: Cut, data: st.DataObject) -> None:
    workers = data.draw(st.integers(1, 3))
    with tempfile.TemporaryDirectory() as directory:
        inputs = {
            name: open_source(stored(Path(directory) / name, array, data))
            for name, array in case.inputs().items()
        }
        try:
            obtained = run(case.options, inputs, cut=cut, workers=workers)
        finally:
            for source in inputs.values():
                source.close()
    assert obtained.fingerprint == run(case.options, case.inputs(), cut=whole(cut)).fingerprint


@repeatable(40)
@given(any_cases(), cuts())
def test_inputs_are_left_as_they_were(case: Case, cut: Cut) -> None:
    before = {name: array.copy() for name, array in case.inputs().items()}
    run(case.options, case.inputs(), cut=cut)
    for name, array in case.inputs().items():
        assert array.tobytes() == before[name].tobytes()


@pytest.mark.parametrize("softmax_of", ["neither", "predictions", "both"])
@pytest.mark.parametrize("axis", [0, 1])
def test_real_segments_and_windows_change_no_bit(softmax_of: str, axis: int) -> None:
    """With the sizes the package has, on distributions of 21 segments and a bit."""
    rng = np.random.default_rng(8)
    shape = (3, 21 * SEGMENT + 77)
    spaces = {"neither": ("log-probs", "probs"), "predictions": ("logits", "probs"), "both": ("logits",) * 2}
    predictions, targets = (
        np.moveaxis(values_in(space, rng, shape, 1, odd=True), 1, axis).astype("f4")
        for space in spaces[softmax_of]
    )
    options = {"axis": axis, "predictions_are": spaces[softmax_of][0], "targets_are": spaces[softmax_of][1]}
    inputs = {"predictions": predictions, "targets": targets}
    expected = run(options, inputs, cut=Cut(largest=1 << 20, smallest=1 << 20), workers=1)
    for workers, piece in itertools.product([1, 2], [SEGMENT, 3 * SEGMENT, 64 * SEGMENT]):
        obtained = run(options, inputs, cut=Cut(piece=piece, largest=16 * SEGMENT), workers=workers)
        assert len(obtained.steps) > 1
        assert obtained.fingerprint == expected.fingerprint


def test_the_sizes_patched_here_are_the_ones_the_package_uses() -> None:
    rows = np.log(np.full((64, 8), 0.125))
    small = run({}, {"predictions": rows, "targets": np.exp(rows)}, cut=Cut(2, 2, 8, 8), workers=1)
    assert small.steps == (8,) * 64


# What is computed


@repeatable(60)
@given(cases(), st.data())
def test_an_axis_gives_what_moving_it_to_the_end_gives(case: Case, data: st.DataObject) -> None:
    ndim, axis = case.predictions.ndim, case.axis % case.predictions.ndim
    moved: dict[str, AnyArray] = {}
    for name, array in case.inputs().items():
        if name == "targets" and case.kind.targets == "labels":
            moved[name] = array
        else:
            moved[name] = np.moveaxis(array.reshape((1,) * (ndim - array.ndim) + array.shape), axis, -1)
    first = run(case.options, case.inputs())
    second = run(case.kind.options(-1) | {"zero_policy": case.options["zero_policy"]}, moved)
    for ours, theirs in zip(first.evaluations, second.evaluations, strict=True):
        assert ours.sum.hex() == theirs.sum.hex()
        assert ours.mean.hex() == theirs.mean.hex()
        assert ours.distmean.hex() == theirs.distmean.hex()
    if first.map is not None and second.map is not None:
        assert bits(np.moveaxis(first.map, axis, -1)) == bits(second.map)


@repeatable(60)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_distributions_changes_no_bit_of_the_sum(case: Case, random: object) -> None:
    axis = case.axis % case.predictions.ndim
    dimension = (axis + 1) % case.predictions.ndim
    assume(dimension != axis and case.weight is None and case.kind.targets != "labels")
    order = list(range(case.predictions.shape[dimension]))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = case.inputs() | {
        name: np.take(array, order, dimension)
        for name, array in case.inputs().items()
        if name in ("predictions", "targets")
    }
    for ours, theirs in zip(
        run(case.options, case.inputs()).evaluations, run(case.options, shuffled).evaluations, strict=True
    ):
        assert spelled(ours.scalars) == spelled(theirs.scalars)
        assert spelled(ours.by_target) == spelled(theirs.by_target)


@repeatable(60)
@given(cases(SINGLE, special=False))
def test_the_sum_is_the_sum_of_the_map(case: Case) -> None:
    outcome = run(case.options, case.inputs())
    (evaluation,) = outcome.evaluations
    assert outcome.map is not None
    if case.kind.losses == ("bce",):
        assert evaluation.sum == math.fsum(outcome.map.ravel().tolist())
    else:
        rows = outcome.map.sum(axis=case.axis)
        bound = 1e-14 * math.fsum(np.abs(outcome.map).ravel().tolist())
        assert evaluation.sum == pytest.approx(math.fsum(rows.ravel().tolist()), rel=0, abs=bound)


@repeatable(40)
@given(cases([Kind(("kl",), "log-probs", "probs")], special=False))
def test_the_sum_of_kl_is_the_exact_sum_of_its_row_sums(case: Case) -> None:
    (evaluation,) = run(case.options, case.inputs()).evaluations
    rows = np.moveaxis(case.predictions, case.axis, -1).reshape(-1, case.predictions.shape[case.axis])
    others = np.moveaxis(case.targets, case.axis, -1).reshape(rows.shape)
    alone = [evaluated(x, y).evaluations[0].sum for x, y in zip(rows, others, strict=True)]
    assert evaluation.sum == math.fsum(alone)


@repeatable(60)
@given(cases())
def test_every_reduction_is_the_sum_by_its_divisor(case: Case) -> None:
    for evaluation in run(case.options, case.inputs()).evaluations:
        shape = case.predictions.shape
        divisors = {"mean": math.prod(shape), "distmean": math.prod(drop(shape, case.axis))}
        for name, divisor in divisors.items():
            assert spelled(getattr(evaluation, name)) == spelled(evaluation.sum / divisor)
        expected = evaluation.sum / shape[0] if evaluation.loss == "kl" else None
        assert spelled(evaluation.batchmean) == spelled(expected)


@repeatable(60)
@given(cases([Kind(("kl",), "log-probs", "probs"), Kind(("kl",), "log-probs", "log-probs")]))
def test_the_map_of_kl_is_kl_div(case: Case) -> None:
    expected = kl_div(
        case.predictions,
        case.targets,
        log_target=case.kind.targets == "log-probs",
        zero_policy=case.options["zero_policy"],
    )
    obtained = run(case.options, case.inputs(), cut=Cut(smallest=16, largest=16)).map
    assert obtained is not None
    assert bits(obtained) == bits(expected)


@repeatable(40)
@given(cases([Kind(("kl",), "logits", "probs", softmax=True)]), st.integers(1, 9))
def test_the_map_of_kl_of_logits_is_kl_div_of_log_softmax(case: Case, segment: int) -> None:
    cut = Cut(segment, 3 * segment, 2 * segment, 2 * segment)
    obtained = run(case.options, case.inputs(), cut=cut).map
    with cutting(cut):
        log_predictions = log_softmax(case.predictions, axis=case.axis)
    expected = kl_div(log_predictions, case.targets, zero_policy=case.options["zero_policy"])
    assert obtained is not None
    assert bits(obtained) == bits(expected)


@repeatable(40)
@given(cases([Kind(("bce",), "probs", "probs", weight=True)]))
def test_the_map_of_bce_is_binary_cross_entropy(case: Case) -> None:
    expected = binary_cross_entropy(case.predictions, case.targets, weight=case.weight)
    obtained = run(case.options, case.inputs(), cut=Cut(smallest=16, largest=16)).map
    assert obtained is not None
    assert bits(obtained) == bits(expected)


@repeatable(40)
@given(cases([Kind(("bce",), "logits", "probs", weight=True, pos_weight=True)]))
def test_the_map_of_bce_of_logits_is_binary_cross_entropy_with_logits(case: Case) -> None:
    expected = binary_cross_entropy_with_logits(
        case.predictions,
        case.targets,
        weight=case.weight,
        pos_weight=case.pos_weight,
        zero_policy=case.options["zero_policy"],
    )
    obtained = run(case.options, case.inputs(), cut=Cut(smallest=16, largest=16)).map
    assert obtained is not None
    assert bits(obtained) == bits(expected)


@repeatable(40)
@given(cases(), st.data())
def test_slicing_by_address_is_slicing_by_numpy(case: Case, data: st.DataObject) -> None:
    assume(case.weight is None and case.pos_weight is None and case.kind.targets != "labels")
    shape, axis = case.predictions.shape, case.axis % case.predictions.ndim
    parts: list[slice | int] = []
    for d, length in enumerate(shape):
        start = data.draw(st.integers(0, length - 1))
        dropped = d != axis and data.draw(st.booleans())
        parts.append(start if dropped else slice(start, data.draw(st.integers(start + 1, length))))
    text = ", ".join(str(part) if isinstance(part, int) else f"{part.start}:{part.stop}" for part in parts)
    kept = [d for d, part in enumerate(parts) if isinstance(part, slice)]
    options = case.options | {"axis": kept.index(axis)}
    if case.kind.softmax:
        options["log_softmax"] = kept.index(axis)
    with tempfile.TemporaryDirectory() as directory:
        opened = {
            name: open_source(
                f"{stored(Path(directory) / name, array, data)}".partition("::")[0] + f"::[{text}]"
            )
            for name, array in case.inputs().items()
        }
        obtained = run(options, opened, cut=Cut(smallest=8, largest=8))
        for source in opened.values():
            source.close()
    sliced = {name: array[tuple(parts)] for name, array in case.inputs().items()}
    assert obtained.fingerprint == run(options, sliced, cut=Cut()).fingerprint


@repeatable(40)
@given(shapes(), st.data(), SEEDS, st.sampled_from(["kl", "bce"]), st.booleans())
def test_labels_are_one_hot_targets(
    shape: tuple[int, ...], data: st.DataObject, seed: int, loss: str, softmax_too: bool
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(seed)
    labels = values_in("labels", rng, shape, axis, odd=False)
    one_hot = np.moveaxis(np.eye(shape[axis])[labels], -1, axis)
    space = "logits" if softmax_too else "probs"
    predictions = values_in(space, rng, shape, axis, odd=True)
    assume(not np.array_equal(predictions, one_hot))  # which would be told of one of them only
    kind = Kind((loss,), space, "labels", softmax=softmax_too)
    by_labels = run(
        kind.options(axis, by_target=True),
        {"predictions": predictions, "targets": labels},
        cut=Cut(4, 9, 8, 8),
    )
    kind = kind._replace(targets="probs")
    by_values = run(
        kind.options(axis, by_target=True),
        {"predictions": predictions, "targets": one_hot},
        cut=whole(Cut(4)),
    )
    assert by_labels.fingerprint == by_values.fingerprint


@repeatable(60)
@given(cases([kind for kind in KINDS if len(kind.losses) > 1]), cuts())
def test_both_losses_in_one_pass_equal_each_alone(case: Case, cut: Cut) -> None:
    both = run(case.options, case.inputs(), cut=cut)
    for position, loss in enumerate(case.kind.losses):
        options = case.options | {"losses": (loss,), "top1": loss == "kl" and case.options["top1"]}
        (alone,) = run(options, case.inputs(), cut=whole(cut)).evaluations
        together = both.evaluations[position]
        assert together.loss == loss
        assert spelled(together.scalars) == spelled(alone.scalars)
        assert spelled(together.by_target) == spelled(alone.by_target)
        assert spelled(together.findings) == spelled(alone.findings)


@repeatable(40)
@given(shapes(), SEEDS)
def test_log_probability_targets_equal_their_probabilities_to_rounding(
    shape: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    log_predictions = values_in("log-probs", rng, shape, -1, odd=False)
    log_targets = values_in("log-probs", rng, shape, -1, odd=True)
    logs = evaluated(log_predictions, log_targets, log_target=True)
    plain = evaluated(log_predictions, np.exp(log_targets))
    assert logs.map is not None
    assert plain.map is not None
    np.testing.assert_allclose(logs.map, plain.map, rtol=1e-12, atol=1e-14)
    assert logs.evaluations[0].sum == pytest.approx(plain.evaluations[0].sum, rel=1e-12, abs=1e-12)


@repeatable(40)
@given(shapes(), SEEDS)
def test_probability_predictions_equal_their_logarithms(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions = values_in("probs", rng, shape, -1, odd=True)
    targets = values_in("probs", rng, shape, -1, odd=True)
    with np.errstate(divide="ignore"):
        expected = evaluated(np.log(predictions), targets)
    assert evaluated(predictions, targets, predictions_are="probs").fingerprint == expected.fingerprint


@repeatable(60)
@given(cases([kind for kind in KINDS if "logits" in (kind.predictions, kind.targets)]), st.floats(0.01, 100))
def test_a_temperature_divides_the_logits_and_nothing_else(case: Case, temperature: float) -> None:
    wide = {name: array.astype(float) for name, array in case.inputs().items()}
    if case.kind.targets == "labels":
        wide["targets"] = case.targets
    divided = dict(wide)
    for name, space in (("predictions", case.kind.predictions), ("targets", case.kind.targets)):
        if space == "logits":
            divided[name] = wide[name] / temperature
    obtained = run(case.options | {"temperature": temperature}, wide, cut=Cut(4, 9, 8, 8))
    assert (
        obtained.fingerprint
        == run(case.options | {"temperature": None}, divided, cut=whole(Cut(4))).fingerprint
    )


@repeatable(40)
@given(cases([kind for kind in KINDS if kind.weight]))
def test_weights_broadcast_as_numpy_broadcasts_them(case: Case) -> None:
    full = {
        name: np.broadcast_to(array, case.predictions.shape).copy() if "weight" in name else array
        for name, array in case.inputs().items()
    }
    obtained = run(case.options, case.inputs(), cut=Cut(4, 9, 8, 8))
    assert obtained.fingerprint == run(case.options, full, cut=whole(Cut(4))).fingerprint


@repeatable(50)
@given(shapes(), st.data(), SEEDS, st.sampled_from(["kl", "bce"]))
def test_broadcast_stretches_both_sides_as_numpy_does(
    shape: tuple[int, ...], data: st.DataObject, seed: int, loss: str
) -> None:
    rng = np.random.default_rng(seed)

    def part_of_shape() -> AnyArray:
        kept = shape[data.draw(st.integers(0, len(shape) - 1)) :]
        lengths = [length if data.draw(st.booleans()) else 1 for length in kept]
        return np.asarray(rng.random(lengths))

    predictions, targets = part_of_shape(), part_of_shape()
    options = {"losses": (loss,), "predictions_are": "probs", "by_target": True}
    stretched = [array.copy() for array in np.broadcast_arrays(predictions, targets)]
    obtained = run(
        options | {"broadcast": True},
        {"predictions": predictions, "targets": targets},
        cut=Cut(4, 9, 8, 8),
        workers=2,
    )
    expected = run(
        options, {"predictions": stretched[0], "targets": stretched[1]}, cut=whole(Cut(4)), workers=1
    )
    assert obtained.fingerprint == expected.fingerprint


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("smaller", ["predictions", "targets"])
def test_the_axis_of_broadcast_inputs_is_one_of_the_result(axis: int, smaller: str) -> None:
    rng = np.random.default_rng(3)
    inputs = {"predictions": rng.random((2, 3, 4)), "targets": rng.random((2, 3, 4))}
    inputs[smaller] = rng.random(4)
    options = {"axis": axis, "predictions_are": "probs"}
    full = {name: np.broadcast_to(array, (2, 3, 4)) for name, array in inputs.items()}
    obtained = run(options | {"broadcast": True}, inputs)
    assert obtained.fingerprint == run(options, full).fingerprint


@repeatable(40)
@given(shapes(), SEEDS, st.sampled_from(["probs", "labels", "logits"]))
def test_bce_of_log_softmax_is_bce_of_softmax(shape: tuple[int, ...], seed: int, targets_are: str) -> None:
    rng = np.random.default_rng(seed)
    logits = values_in("logits", rng, shape, -1, odd=False)
    assume(shape[-1] > 1)
    targets = values_in(targets_are, rng, shape, -1, odd=False)
    options = {"losses": ("bce",), "targets_are": targets_are}
    softly = evaluated(logits, targets, log_softmax=-1, **options)
    if targets_are == "logits":
        targets, options["targets_are"] = softmax(targets, axis=-1), "probs"
    plain = evaluated(softmax(logits, axis=-1), targets, **options)
    assert softly.map is not None
    assert plain.map is not None
    np.testing.assert_allclose(softly.map, plain.map, rtol=1e-7, atol=1e-12)


@repeatable(40)
@given(shapes(), SEEDS)
def test_logit_targets_of_bce_go_through_the_sigmoid(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, targets = rng.random(shape), 4 * rng.standard_normal(shape)
    obtained = evaluated(predictions, targets, losses=("bce",), targets_are="logits").map
    assert obtained is not None
    np.testing.assert_allclose(obtained, binary_cross_entropy(predictions, expit(targets)), rtol=1e-12)


@repeatable(40)
@given(shapes(), SEEDS)
def test_kl_of_a_distribution_from_itself_is_zero(shape: tuple[int, ...], seed: int) -> None:
    logits = values_in("logits", np.random.default_rng(seed), shape, -1, odd=True)
    outcome = evaluated(logits, logits, log_softmax=-1, targets_are="logits")
    assert outcome.evaluations[0].sum == 0.0


# By target


@repeatable(60)
@given(cases(SINGLE, special=False), cuts())
def test_the_groups_by_target_are_sums_over_parts_of_the_map(case: Case, cut: Cut) -> None:
    assume(case.kind.targets in ("probs", "labels"))
    outcome = run(case.options | {"by_target": True}, case.inputs(), cut=cut)
    split = outcome.evaluations[0].by_target
    assert split is not None
    assert outcome.map is not None
    y = case.targets.astype(float)
    if case.kind.targets == "labels":
        y = np.moveaxis(np.eye(case.predictions.shape[case.axis])[case.targets], -1, case.axis)
    masks = {"one": y == 1, "zero": y == 0, "between": (y > 0) & (y < 1), "outside": (y < 0) | (y > 1)}
    for name, mask in masks.items():
        group = getattr(split, name)
        assert group.count == np.count_nonzero(mask)
        assert group.total.value == math.fsum(outcome.map[mask].tolist())


def test_there_are_no_groups_unless_asked_for() -> None:
    assert evaluated(np.zeros((1, 1)), np.ones((1, 1))).evaluations[0].by_target is None


# What is found


@repeatable(50)
@given(shapes(), st.data(), SEEDS, cuts(), st.sampled_from(["limit", "torch"]))
def test_zero_and_infinite_terms_are_counted_and_the_first_of_each_is_named(
    shape: tuple[int, ...], data: st.DataObject, seed: int, cut: Cut, policy: str
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    x, y = -rng.random(shape), rng.random(shape)
    x[rng.random(shape) < 0.2] = -math.inf
    y[rng.random(shape) < 0.3] = 0.0
    outcome = run(
        {"axis": axis, "zero_policy": policy},
        {"predictions": x, "targets": y},
        cut=cut,
        workers=data.draw(st.integers(1, 3)),
    )
    undefined = 0.0 if policy == "limit" else math.nan
    assert_found(outcome, "zero-terms", (y == 0) & np.isneginf(x), undefined)
    assert_found(outcome, "infinite-terms", (y > 0) & np.isneginf(x), math.inf)
    assert_found(outcome, "nan-terms", (y == 0) & np.isneginf(x) & (policy == "torch"), math.nan)


def assert_found(outcome: Outcome, id: str, mask: npt.NDArray[np.bool_], value: float) -> None:
    found = finding(outcome, id)
    if not mask.any():
        assert found is None
        return
    assert found is not None
    assert found.count == np.count_nonzero(mask)
    assert found.place == tuple(int(i) for i in np.argwhere(mask)[0])
    assert spelled(found.value) == spelled(value)


@repeatable(60)
@given(shapes(), st.data(), SEEDS, cuts())
def test_zero_terms_of_targets_in_log_space_are_counted(
    shape: tuple[int, ...], data: st.DataObject, seed: int, cut: Cut
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    x, t = -rng.random(shape), -rng.random(shape)
    t[rng.random(shape) < 0.3] = -math.inf
    outcome = run({"axis": axis, "log_target": True}, {"predictions": x, "targets": t}, cut=cut)
    assert_found(outcome, "zero-terms", np.isneginf(t), 0.0)
    assert math.isfinite(outcome.evaluations[0].sum)


@repeatable(60)
@given(shapes(), st.data(), SEEDS, cuts())
def test_undefined_terms_are_counted_and_the_first_is_named(
    shape: tuple[int, ...], data: st.DataObject, seed: int, cut: Cut
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    x, y = -rng.random(shape), rng.random(shape)
    bad = rng.random(shape) < 0.2
    x[bad & (rng.random(shape) < 0.5)] = math.nan
    y[bad & ~np.isnan(x)] = -0.5
    outcome = run({"axis": axis}, {"predictions": x, "targets": y}, cut=cut, workers=2)
    assert_found(outcome, "nan-terms", bad, math.nan)


@repeatable(50)
@given(shapes(), st.data(), SEEDS, cuts())
def test_distributions_below_zero_are_counted_and_the_least_is_named(
    shape: tuple[int, ...], data: st.DataObject, seed: int, cut: Cut
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal(shape), rng.random(shape)
    outcome = run(
        {"axis": axis}, {"predictions": x, "targets": y}, cut=cut, workers=data.draw(st.integers(1, 3))
    )
    assert outcome.map is not None
    rows = np.asarray(outcome.map.sum(axis=axis))
    assume((np.abs(rows) > 1e-9).all())
    found = finding(outcome, "negative-kl")
    if not (rows < 0).any():
        assert found is None
        return
    assert found is not None
    assert found.count == np.count_nonzero(rows < 0)
    assert found.place == tuple(int(i) for i in np.unravel_index(rows.argmin(), rows.shape))
    assert found.value == pytest.approx(rows.min(), rel=1e-9)
    assert found.severity == "warning"


def test_of_equal_least_distributions_the_first_is_named_whatever_the_blocks() -> None:
    x, y = np.ones((40, 3)), np.full((40, 3), 0.5)
    x[:7] = 0.0
    inputs = {"predictions": x, "targets": y}
    for largest, workers in itertools.product([3, 6, 60, 1000], [1, 3]):
        found = finding(run({}, inputs, cut=Cut(1, 6, 3, largest), workers=workers), "negative-kl")
        assert found is not None
        assert (found.count, found.place) == (40, (7,))


@repeatable(60)
@given(shapes(), st.data(), SEEDS, cuts())
def test_clamped_terms_are_counted_and_the_first_is_named(
    shape: tuple[int, ...], data: st.DataObject, seed: int, cut: Cut
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.choice([0.0, 1e-60, 1e-43, 0.5, 1 - 2**-53, 1.0], shape)
    y = rng.choice([0.0, 0.25, 1.0], shape)
    outcome = run(
        {"losses": ("bce",)},
        {"predictions": p, "targets": y},
        cut=cut,
        workers=data.draw(st.integers(1, 3)),
    )
    assert outcome.map is not None
    clamped = ((p < math.exp(-100)) & (y > 0)) | ((p == 1) & (y < 1))
    first = outcome.map[clamped][0] if clamped.any() else math.nan
    assert_found(outcome, "clamped-terms", clamped, float(first))


@repeatable(60)
@given(shapes(), st.data(), SEEDS, cuts(), st.sampled_from(["predictions", "targets"]))
def test_values_outside_the_unit_interval_are_refused_with_count_and_first_place(
    shape: tuple[int, ...], data: st.DataObject, seed: int, cut: Cut, wrong: str
) -> None:
    rng = np.random.default_rng(seed)
    inputs = {"predictions": rng.random(shape), "targets": rng.random(shape)}
    bad = rng.random(shape) < 0.2
    assume(bad.any())
    inputs[wrong][bad] = rng.choice([-0.5, 1.5, math.nan, math.inf, -math.inf], np.count_nonzero(bad))
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    with pytest.raises(DomainError) as refusal:
        run({"losses": ("bce",)}, inputs, cut=cut, workers=data.draw(st.integers(1, 3)))
    assert f"{wrong}: {np.count_nonzero(bad)} of {bad.size} " in str(refusal.value)
    assert f"first {inputs[wrong][place]} at index {place}" in str(refusal.value)


@repeatable(40)
@given(shapes(), SEEDS, cuts())
def test_log_probabilities_above_zero_are_refused_for_bce(
    shape: tuple[int, ...], seed: int, cut: Cut
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    assume((x > 0).any())
    place = tuple(int(i) for i in np.argwhere(x > 0)[0])
    with pytest.raises(DomainError) as refusal:
        run(
            {"losses": ("bce",), "predictions_are": "log-probs"},
            {"predictions": x, "targets": rng.random(shape)},
            cut=cut,
        )
    assert f"{np.count_nonzero(x > 0)} of {x.size} log-probabilities above 0" in str(refusal.value)
    assert f"first {x[place]} at index {place}" in str(refusal.value)


@repeatable(40)
@given(shapes(), SEEDS, cuts())
def test_targets_outside_the_unit_interval_are_a_finding_with_logits(
    shape: tuple[int, ...], seed: int, cut: Cut
) -> None:
    rng = np.random.default_rng(seed)
    y = rng.choice([-1.0, 0.0, 0.5, 1.0, 2.0], shape)
    outcome = run(
        {"losses": ("bce",), "predictions_are": "logits"},
        {"predictions": rng.standard_normal(shape), "targets": y},
        cut=cut,
    )
    outside = (y < 0) | (y > 1)
    assert_found(outcome, "targets-outside", outside, float(y[outside][0]) if outside.any() else 0.0)


@repeatable(40)
@given(shapes(), SEEDS, st.sampled_from(["kl", "bce"]))
def test_data_as_it_should_be_has_no_warning(shape: tuple[int, ...], seed: int, loss: str) -> None:
    rng = np.random.default_rng(seed)
    predictions, targets = rng.standard_normal(shape), values_in("probs", rng, shape, -1, odd=False)
    softmax_of = {"log_softmax": -1} if loss == "kl" else {"predictions_are": "logits"}
    (result,) = evaluated(predictions, targets, losses=(loss,), **softmax_of).evaluations
    # Random rows are not told from rows in another order.
    assert {found.id for found in result.findings if found.severity == "warning"} <= {"misaligned"}


# The record


def test_the_record_names_the_inputs_as_they_are_stored() -> None:
    rng = np.random.default_rng(4)
    predictions, targets = rng.standard_normal((5, 3)).astype(">f4"), rng.integers(0, 3, 5).astype("u1")
    (result,) = evaluated(predictions, targets, log_softmax=-1, targets_are="labels").evaluations
    assert result.predictions == ("predictions", (5, 3), ">f4", "logits", None)
    assert result.targets == ("targets", (5,), "uint8", "labels", None)
    assert (result.loss, result.shape, result.axis) == ("kl", (5, 3), 1)
    assert result.settings.targets_are == "labels"


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "i8", "f2", "f4", "f8", "g"])
def test_every_real_dtype_is_computed_in_float64(dtype: str) -> None:
    y = np.array([[1, 0], [0, 1]]).astype(dtype)
    x = np.log([[0.5, 0.5], [0.25, 0.75]])
    assert evaluated(x, y).evaluations[0].sum == math.fsum([-math.log(0.5), -math.log(0.75)])


@pytest.mark.parametrize("options", [{}, {"losses": ("bce",), "predictions_are": "log-probs"}])
def test_a_scalar_is_one_distribution_of_one_value(options: dict[str, Any]) -> None:
    (result,) = evaluated(np.array(-1.0), np.array(1.0), **options).evaluations
    assert (result.sum, result.mean, result.distmean) == (1.0, 1.0, 1.0)
    assert (result.shape, result.axis) == ((), 0)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (2, 0), (3, 0, 4)])
@pytest.mark.parametrize("loss", ["kl", "bce"])
@pytest.mark.parametrize("workers", [1, 2])
def test_empty_arrays_have_sum_0_no_mean_and_a_finding(
    shape: tuple[int, ...], loss: str, workers: int
) -> None:
    empty = np.empty(shape)
    outcome = run(
        {"losses": (loss,), "by_target": True}, {"predictions": empty, "targets": empty}, workers=workers
    )
    (result,) = outcome.evaluations
    assert result.sum == 0.0
    assert math.isnan(result.mean)
    assert finding(outcome, "empty") is not None
    assert result.by_target is not None
    assert result.by_target.one.mean is None
    if loss == "kl":
        assert result.batchmean is not None
        assert math.isnan(result.batchmean) if shape[0] == 0 else result.batchmean == 0.0


@pytest.mark.parametrize("shape", [(0, 5), (2, 0)])
def test_empty_logits_and_labels_are_computed_too(shape: tuple[int, ...]) -> None:
    labels = np.empty(shape[:1], int)
    (result,) = evaluated(np.empty(shape), labels, log_softmax=1, targets_are="labels").evaluations
    assert result.sum == 0.0


# What is refused


@pytest.mark.parametrize(
    ("shapes", "options", "error", "said"),
    [
        (((2, 3), (3, 2)), {}, ShapeMismatch, r"\(2, 3\).*\(3, 2\)"),
        (((2, 3), (2, 4)), {}, ShapeMismatch, r"is one padded\? --trim-axis cuts it to 3"),
        (((2, 3), (3,)), {}, ShapeMismatch, "--broadcast stretches them"),
        (((2, 3), (2,)), {"targets_are": "logits"}, ShapeMismatch, "expected equal shapes"),
        (((2, 3), (4, 3)), {"broadcast": True}, ShapeMismatch, "do not broadcast to one shape"),
        (
            ((2, 3), (2, 3)),
            {"axis": 2},
            AxisError,
            r"axis 2 is out of range for 2 dimensions, shape \(2, 3\)",
        ),
        (((2, 3), (2, 3)), {"axis": -3}, AxisError, "axis -3 is out of range"),
        (((2, 3), (3,)), {"targets_are": "labels"}, ShapeMismatch, r"expected \(2,\)"),
        (((), ()), {"targets_are": "labels"}, ShapeMismatch, "expected an axis of classes"),
        (((2, 1), (2, 3)), {"broadcast": True, "log_softmax": -1}, ShapeMismatch, "can't be stretched"),
        (((2, 3), (3,)), {"broadcast": True, "targets_are": "logits", "axis": 0}, ShapeMismatch, "stretched"),
    ],
)
def test_inputs_that_do_not_belong_together_are_refused(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    options: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    kind = int if options.get("targets_are") == "labels" else float
    with pytest.raises(error, match=said):
        evaluated(np.zeros(shapes[0]), np.zeros(shapes[1], kind), **options)


def test_integer_targets_one_dimension_short_are_taken_for_forgotten_labels() -> None:
    with pytest.raises(ShapeMismatch, match="if these are class labels, say --targets-are labels"):
        evaluated(np.zeros((2, 3)), np.zeros(2, int))


def test_labels_that_are_not_integers_are_refused() -> None:
    with pytest.raises(FormatError, match="float64, expected integer labels"):
        evaluated(np.zeros((2, 3)), np.zeros(2), targets_are="labels")


@pytest.mark.parametrize("name", ["weight", "pos_weight"])
@pytest.mark.parametrize("shape", [(2,), (4, 2, 3), (3, 3)])
def test_a_weight_that_does_not_broadcast_to_the_predictions_is_refused(
    name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeMismatch, match=f"^{name}.*expected a shape that broadcasts to"):
        evaluated(
            np.zeros((2, 3)),
            np.zeros((2, 3)),
            losses=("bce",),
            predictions_are="logits",
            **{name: np.ones(shape)},
        )


@pytest.mark.parametrize("label", [-1, 3, 127])
@pytest.mark.parametrize("axis", [0, 2])
def test_a_label_that_is_no_class_is_refused_with_its_place(label: int, axis: int) -> None:
    shape = (3, 5, 7) if axis == 0 else (5, 7, 3)
    labels = np.ones((5, 7), "i1")
    labels[3, 2] = label
    predictions = np.log(np.full(shape, 1 / 3))
    with pytest.raises(DomainError, match=rf"1 of 35 labels outside 0 to 2, first {label} at index \(3, 2\)"):
        run(
            {"axis": axis, "targets_are": "labels"},
            {"predictions": predictions, "targets": labels},
            cut=Cut(3, 9, 9, 9),
        )


def test_a_map_of_two_losses_is_refused() -> None:
    spec = resolve_spec(losses=("kl", "bce"), predictions_are="probs")
    source = ArraySource(np.full((1, 2), 0.5))
    with pytest.raises(UsageError, match="one --loss at a time"):
        evaluate_sources(spec, Inputs(source, source), writers=[MapArray((1, 2))])


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(workers: int) -> None:
    source = ArraySource(np.full((1, 2), 0.5))
    with pytest.raises(UsageError, match=f"workers {workers}: expected 1 or more"):
        evaluate_sources(resolve_spec(), Inputs(source, source), resources=Resources(workers=workers))


@pytest.mark.parametrize("memory", [-1, 0, 1000])
def test_less_memory_than_a_block_takes_is_refused_with_what_it_takes(memory: int) -> None:
    source = ArraySource(np.full((1, 2), 0.5))
    with pytest.raises(UsageError, match=f"memory {memory} bytes: expected at least") as refusal:
        evaluate_sources(resolve_spec(), Inputs(source, source), resources=Resources(memory=memory))
    least, rounded = re.findall(r"at least (\d+) \((\S+)MiB\)", str(refusal.value))[0]
    assert int(least) <= float(rounded) * (1 << 20) < int(least) + (1 << 20) / 10
    least = int(least)
    evaluate_sources(resolve_spec(), Inputs(source, source), resources=Resources(memory=least))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_a_writer_ends_the_computation(workers: int) -> None:
    class FullDisk:
        def write(self, block: Block, values: AnyArray) -> None:
            raise OSError("no space left")

    source = ArraySource(np.full((50, 2), 0.5))
    with cutting(Cut(2, 2, 4, 4)), pytest.raises(OSError, match="no space left"):
        evaluate_sources(
            resolve_spec(), Inputs(source, source), writers=[FullDisk()], resources=Resources(workers=workers)
        )
