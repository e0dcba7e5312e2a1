"""PyTorch's stored answers (`torch_cases/make.py`) against ours, element by element and reduced."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli import (
    Evaluation,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    evaluate,
    kl_div,
    log_softmax,
)
from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.blocks import Block
from kldiv_cli.reductions import legacy_reduction
from kldiv_cli.spec import resolve_spec

Array = npt.NDArray[np.float64]
Case = dict[str, Any]

STORED = Path(__file__).parent / "torch_cases"
CASES: dict[str, Any] = json.loads((STORED / "cases.json").read_text(encoding="utf-8"))
with np.load(STORED / "arrays.npz") as archive:
    ARRAYS: dict[str, npt.NDArray[Any]] = dict(archive)

RTOL = 1e-12
# A loss is a difference of terms that may be far larger than it, each rounded to a few parts in
# 2**53 by whoever computed it: what is left of them is only as exact as they were.
CANCELLATION = 1e-15


def of_cases(which: Callable[[Case], bool]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in CASES["cases"] if which(c)])


every_case = of_cases(lambda case: True)
some_bce_cases = of_cases(lambda case: case["id"].startswith("bce-") and "-3x5" in case["id"])
legacy_cases = of_cases(lambda case: "legacy" in case)
selected_cases = pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in CASES["selected"]])


class MapKeeper:
    """Takes the per-element map in memory."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.full(shape, -12345.0)

    def write(self, block: Block, values: npt.NDArray[Any]) -> None:
        self.values[block] = values


def stored(name: str | None) -> npt.NDArray[Any] | None:
    return None if name is None else ARRAYS[name]


def expected_map(case: Case) -> Array:
    return ARRAYS[f"map/{case['id']}"]


def axis_of(case: Case) -> int:
    axis: int = case["settings"].get("log_softmax", case["settings"].get("axis", -1))
    return axis


def targets_of(case: Case) -> tuple[npt.NDArray[Any], bool]:
    """The targets, one for each element, and whether they are in log space."""
    settings, targets = case["settings"], ARRAYS[case["targets"]]
    if settings.get("targets_are") == "labels":
        classes = ARRAYS[case["predictions"]].shape[axis_of(case)]
        return np.moveaxis(np.eye(classes)[targets], -1, axis_of(case)), False
    if settings.get("targets_are") == "logits":
        return log_softmax(targets.astype(float) / (settings["temperature"] or 1.0), axis_of(case)), True
    return targets, settings.get("log_target", False)


def predictions_of(case: Case) -> npt.NDArray[Any]:
    """The predictions as the functions take them."""
    settings, x = case["settings"], ARRAYS[case["predictions"]]
    if settings.get("temperature") is not None:
        x = x.astype(float) / settings["temperature"]
    if "log_softmax" in settings:
        return log_softmax(x, settings["log_softmax"])
    if settings["loss"] == "kl" and settings.get("predictions_are") == "probs":
        x = np.log(x.astype(float))
    return x


def obtained_map(case: Case) -> Array:
    settings, weight = case["settings"], stored(case["weight"])
    x, (y, log_target) = predictions_of(case), targets_of(case)
    zero_policy = settings["zero_policy"]
    if settings["loss"] == "kl":
        return kl_div(x, y, log_target=log_target, zero_policy=zero_policy)
    if settings.get("predictions_are") != "logits":
        return binary_cross_entropy(x, y, weight=weight)
    pos_weight = stored(case["pos_weight"])
    return binary_cross_entropy_with_logits(
        x, y, weight=weight, pos_weight=pos_weight, zero_policy=zero_policy
    )


def evaluated(case: Case) -> Evaluation:
    return evaluate(
        ARRAYS[case["predictions"]],
        ARRAYS[case["targets"]],
        weight=stored(case["weight"]),
        pos_weight=stored(case["pos_weight"]),
        **case["settings"],
    )


def cancelling(case: Case) -> Array:
    """How large the terms are that each element's loss is the difference of, from the inputs alone."""
    settings, (y, log_target) = case["settings"], targets_of(case)
    z = ARRAYS[case["predictions"]].astype(float) / (settings.get("temperature") or 1.0)
    with np.errstate(all="ignore"):
        if settings["loss"] == "bce":
            logits = settings.get("predictions_are") == "logits"
            return _finite((1 + abs(y)) * abs(z) * _weights(case)) if logits else np.zeros(z.shape)
        reach = abs(np.log(z)) if settings.get("predictions_are") == "probs" else abs(z)
        if "log_softmax" in settings and z.size:
            reach = reach + _finite(z).max() + np.log(z.size)
        if log_target:
            return _finite(np.exp(y.astype(float)) * (abs(y) + reach))
        return _finite(y * (abs(np.log(y.astype(float))) + reach))


def divisor_of(case: Case, reduction: str) -> int:
    shape = expected_map(case).shape or (1,)
    size = int(np.prod(shape))
    divisors = {
        "sum": 1,
        "mean": size,
        "batchmean": shape[0],
        "distmean": size // (shape[axis_of(case)] or 1),
    }
    return divisors[reduction] or 1


def _weights(case: Case) -> Array:
    weight, pos_weight = stored(case["weight"]), stored(case["pos_weight"])
    factor = np.float64(1.0) if weight is None else weight.astype(float)
    return np.asarray(factor if pos_weight is None else factor * (1.0 + pos_weight.astype(float)))


def _finite(values: Array) -> Array:
    return np.nan_to_num(np.abs(values), nan=0.0, posinf=0.0)


def assert_close(obtained: npt.ArrayLike, expected: npt.ArrayLike, cancelled: npt.ArrayLike) -> None:
    a, b = np.asarray(obtained, dtype=float), np.asarray(expected, dtype=float)
    assert a.shape == b.shape
    finite = np.isfinite(b)
    np.testing.assert_array_equal(a[~finite], b[~finite])
    off = np.abs(a[finite] - b[finite])
    allowed = RTOL * np.abs(b[finite]) + CANCELLATION * np.broadcast_to(cancelled, b.shape)[finite]
    assert (off <= allowed).all(), f"obtained {a[finite]}, expected {b[finite]}, off by {off}"


@every_case
def test_each_element_is_what_pytorch_computes(case: Case) -> None:
    assert_close(obtained_map(case), expected_map(case), cancelling(case))


@every_case
def test_each_scalar_is_what_pytorch_reduces_to(case: Case) -> None:
    result, cancelled = evaluated(case), float(cancelling(case).sum())
    for name, value in case["scalars"].items():
        assert_close(getattr(result, name), float(value), cancelled / divisor_of(case, name))


@every_case
def test_the_map_that_evaluate_writes_is_what_pytorch_computes(case: Case) -> None:
    inputs = open_inputs(
        ARRAYS[case["predictions"]],
        ARRAYS[case["targets"]],
        stored(case["weight"]),
        stored(case["pos_weight"]),
    )
    settings = {name: value for name, value in case["settings"].items() if name != "loss"}
    settings |= {name: case[name] is not None for name in ("weight", "pos_weight")}
    spec = resolve_spec(losses=(case["settings"]["loss"],), **settings)
    keeper = MapKeeper(expected_map(case).shape)
    evaluate_to(spec, inputs, writers=(keeper,))
    assert_close(keeper.values, expected_map(case), cancelling(case))


@selected_cases
def test_what_counts_of_padded_sequences_is_what_pytorch_computes_on_it_alone(case: Case) -> None:
    """Garbage in the padding included; PyTorch's batchmean of the chosen positions is our distmean."""
    result = evaluate(
        ARRAYS[case["predictions"]],
        ARRAYS[case["targets"]],
        weight=stored(case["weight"]),
        mask=stored(case["mask"]),
        **case["settings"],
    )
    assert {finding.id for finding in result.findings} <= {"negative-kl", "predictions-unnormalised"}
    for name, value in case["scalars"].items():
        assert getattr(result, name) == pytest.approx(value, rel=RTOL)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c["id"]) for c in CASES["selected"] if c["mask"] != "mask/3x6x5"]
)
def test_the_count_of_padded_sequences_is_that_of_their_lengths(case: Case) -> None:
    """Three sequences of 6, 2 and 3 positions and 5 classes."""
    predictions, targets = ARRAYS[case["predictions"]], ARRAYS[case["targets"]]
    result = evaluate(predictions, targets, mask=stored(case["mask"]), **case["settings"])
    assert result.scalars[-3:] == (11 * 5, 3, 11)


@some_bce_cases
def test_bce_has_no_batchmean_as_in_pytorch(case: Case) -> None:
    assert evaluated(case).batchmean is None


@pytest.mark.parametrize(
    "flags", CASES["legacy"], ids=lambda f: f"size_average={f['size_average']}-reduce={f['reduce']}"
)
def test_legacy_flags_mean_the_reduction_that_pytorch_names(flags: dict[str, Any]) -> None:
    assert legacy_reduction(flags["size_average"], flags["reduce"]) == flags["reduction"]


@legacy_cases
def test_legacy_flags_yield_the_value_that_pytorch_computes(case: Case) -> None:
    legacy = case["legacy"]
    chosen = legacy_reduction(legacy["size_average"], legacy["reduce"]) or "mean"
    if legacy["value"] is None:
        assert chosen == "none"
    else:
        cancelled = float(cancelling(case).sum()) / divisor_of(case, chosen)
        assert_close(getattr(evaluated(case), chosen), legacy["value"], cancelled)
