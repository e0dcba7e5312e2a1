from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.evaluation import Evaluation
from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.quantities import known_names, plain_name, quantities, quantities_of, rank_of
from kldiv_cli.record import evaluation_record
from kldiv_cli.spec import Spec, resolve_spec
from tests.cases import repeatable

SHAPE = (6, 5)


@st.composite
def computations(draw: st.DrawFn) -> tuple[Spec, tuple[Evaluation, ...]]:
    """Every combination of what adds numbers to a result, computed."""
    losses = draw(st.sampled_from([("kl",), ("bce",), ("kl", "bce"), ("bce", "kl")]))
    labels, masked = draw(st.booleans()), draw(st.booleans())
    spec = resolve_spec(
        losses=losses,
        log_softmax=-1,
        targets_are="labels" if labels else "probs",
        mask=masked,
        by_target=draw(st.booleans()),
        blocks_of=draw(st.none() | st.sampled_from([2, 3])),
        quantiles=draw(st.lists(st.floats(0, 1), max_size=3)),
        top1="kl" in losses and draw(st.booleans()),
    )
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    z = rng.normal(0, 2, SHAPE)
    targets = rng.integers(0, SHAPE[1], SHAPE[0]) if labels else rng.dirichlet(np.ones(SHAPE[1]), SHAPE[0])
    mask = rng.random(SHAPE[0]) < draw(st.sampled_from([0.0, 0.5])) if masked else None
    return spec, evaluate_to(spec, open_inputs(z, targets, mask=mask))


def in_json(evaluation: Evaluation, name: str) -> Any:
    """What compute's JSON has at the place that a name stands for."""
    record = evaluation_record(evaluation)
    odd = record.get("nonfinite", {})
    parts = ["statistics", name] if name in record["statistics"] and name not in record else name.split(".")
    if name == "blocks.standard_error":
        parts = ["statistics", "blocks", "standard_error"]
    if name == "top1":
        parts = ["top1", "share"]
    value = record
    for part in parts:
        value = value[part]
    return float(odd[".".join(parts)]) if ".".join(parts) in odd else value


@given(computations())
@repeatable(60)
def test_the_names_are_known_before_anything_is_computed(computed: tuple[Spec, Any]) -> None:
    spec, evaluations = computed
    assert known_names(spec) == tuple(quantities(evaluations))


@given(computations())
@repeatable(60)
def test_each_number_is_that_of_computes_json_at_the_same_name(computed: tuple[Spec, Any]) -> None:
    _, evaluations = computed
    for evaluation in evaluations:
        for name, value in quantities_of(evaluation).items():
            if name.startswith("by_target.outside") or (name.endswith(".mean") and math.isnan(value)):
                continue  # JSON leaves out what no target is, and has null for the mean of none
            np.testing.assert_equal(in_json(evaluation, name), value, name)


@given(computations())
@repeatable(60)
def test_one_loss_has_plain_names_and_two_the_counts_only(computed: tuple[Spec, Any]) -> None:
    _, evaluations = computed
    named = quantities(evaluations)
    for evaluation in evaluations:
        for name, value in quantities_of(evaluation).items():
            np.testing.assert_equal(named[f"{evaluation.loss}.{name}"], value)
            if len(evaluations) == 1:
                np.testing.assert_equal(named[name], value)
    if len(evaluations) == 2:
        assert {name for name in named if plain_name(name) == name} == {"elements", "distributions", "batch"}


@given(computations(), st.randoms(use_true_random=False))
@repeatable(60)
def test_names_are_sorted_as_they_are_computed(computed: tuple[Spec, Any], rng: random.Random) -> None:
    for evaluation in computed[1]:
        names = list(quantities_of(evaluation))
        mixed = rng.sample(names, len(names))
        assert sorted(mixed, key=rank_of) == names


def test_unknown_names_come_last() -> None:
    assert sorted(["zebra", "ant", "maximum", "p5", "p10"], key=rank_of) == [
        *("p5", "p10", "maximum"),
        *("ant", "zebra"),
    ]


@given(computations())
@repeatable(60)
def test_every_name_can_stand_in_a_limit(computed: tuple[Spec, Any]) -> None:
    for name in known_names(computed[0]):
        assert parse_limit(f"{name} < 1").statistic == name


def test_names_without_their_loss() -> None:
    assert [plain_name(name) for name in ("kl.p99", "bce.by_target.one.mean", "mean")] == [
        *("p99", "by_target.one.mean"),
        "mean",
    ]
