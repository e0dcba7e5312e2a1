from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from kldiv_cli.errors import UsageError
from kldiv_cli.spec import QUANTILES, Spec, resolve_spec


def test_kl_takes_log_probabilities_and_probabilities_along_the_last_axis_by_default() -> None:
    assert resolve_spec() == Spec(
        losses=("kl",),
        predictions_are="log-probs",
        targets_are="probs",
        axis=-1,
        log_softmax=False,
        temperature=None,
        zero_policy="limit",
        by_target=False,
        broadcast=False,
        mask=False,
        ignore_value=None,
        trim_axis=False,
        quantiles=QUANTILES,
        worst=0,
        blocks_of=None,
        top1=False,
        histogram=False,
    )


def test_bce_takes_probabilities_on_both_sides_by_default() -> None:
    spec = resolve_spec(losses=("bce",))
    assert (spec.predictions_are, spec.targets_are, spec.log_softmax) == ("probs", "probs", False)


@pytest.mark.parametrize("losses", [("kl",), ("bce",), ("kl", "bce")])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_log_softmax_makes_predictions_logits_and_gives_the_axis(losses: tuple[str, ...], axis: int) -> None:
    spec = resolve_spec(losses=losses, log_softmax=axis)
    assert (spec.predictions_are, spec.log_softmax, spec.axis) == ("logits", True, axis)


def test_logits_for_kl_are_normalised_along_the_axis() -> None:
    spec = resolve_spec(predictions_are="logits", axis=1)
    assert (spec.log_softmax, spec.axis) == (True, 1)


def test_logits_for_bce_are_not_normalised() -> None:
    spec = resolve_spec(losses=("bce",), predictions_are="logits")
    assert not spec.log_softmax
    assert spec.bce_with_logits


def test_log_softmax_of_bce_is_not_bce_with_logits() -> None:
    assert not resolve_spec(losses=("bce",), log_softmax=1).bce_with_logits


def test_log_target_is_another_name_for_log_probability_targets() -> None:
    expected = resolve_spec(targets_are="log-probs")
    assert resolve_spec(log_target=True) == expected == resolve_spec(log_target=True, targets_are="log-probs")


def test_the_same_axis_may_be_said_twice() -> None:
    assert resolve_spec(log_softmax=1, axis=1) == resolve_spec(log_softmax=1)


def test_a_loss_named_twice_is_computed_once() -> None:
    assert resolve_spec(losses=("kl", "kl")).losses == ("kl",)


def test_losses_keep_the_order_they_were_given_in() -> None:
    assert resolve_spec(losses=("bce", "kl"), predictions_are="probs").losses == ("bce", "kl")


@pytest.mark.parametrize(
    ("options", "elementwise"),
    [
        ({"losses": ("bce",)}, True),
        ({"losses": ("bce",), "predictions_are": "logits"}, True),
        ({"losses": ("bce",), "predictions_are": "logits", "targets_are": "logits"}, True),
        ({"losses": ("bce",), "log_softmax": 1}, False),
        ({"losses": ("bce",), "targets_are": "labels"}, False),
        ({"losses": ("kl",)}, False),
        ({"losses": ("bce",), "mask": True}, False),
        ({"losses": ("bce",), "ignore_value": -1}, False),
        ({"losses": ("bce", "kl"), "predictions_are": "probs"}, False),
    ],
)
def test_only_bce_of_everything_without_normalisation_and_labels_is_elementwise(
    options: dict[str, Any], elementwise: bool
) -> None:
    assert resolve_spec(**options).elementwise is elementwise


@pytest.mark.parametrize(
    ("options", "softmax"),
    [
        ({"targets_are": "logits"}, True),
        ({"losses": ("bce",), "targets_are": "logits"}, False),
        ({"losses": ("bce",), "targets_are": "logits", "predictions_are": "logits"}, False),
        ({"losses": ("bce",), "targets_are": "logits", "log_softmax": 1}, True),
        ({"losses": ("bce", "kl"), "targets_are": "logits", "predictions_are": "probs"}, True),
        ({"log_softmax": 1}, False),
    ],
)
def test_logit_targets_go_through_the_softmax_wherever_a_distribution_is_meant(
    options: dict[str, Any], softmax: bool
) -> None:
    assert resolve_spec(**options).targets_softmax is softmax


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"losses": ()}, "loss: none given"),
        ({"losses": ("mse",)}, "loss 'mse': expected one of kl, bce"),
        ({"losses": ("kl", "KL")}, "loss 'KL'"),
        ({"predictions_are": "labels"}, "predictions_are 'labels': expected one of log-probs, probs, logits"),
        ({"targets_are": "log"}, "targets_are 'log': expected one of probs, log-probs, logits, labels"),
        ({"zero_policy": "zero"}, "zero_policy 'zero': expected one of limit, torch"),
        ({"losses": ("kl", "bce")}, "say which with --predictions-are"),
        ({"losses": ("kl", "bce"), "predictions_are": "logits"}, "--log-softmax AXIS"),
        ({"log_softmax": 1, "predictions_are": "probs"}, "log-softmax takes logits"),
        ({"log_softmax": 1, "predictions_are": "log-probs"}, "log-softmax takes logits"),
        ({"log_target": True, "targets_are": "probs"}, "contradicts --log-target"),
        ({"log_target": True, "targets_are": "logits"}, "contradicts --log-target"),
        ({"log_target": True, "targets_are": "labels"}, "contradicts --log-target"),
        ({"log_softmax": 1, "axis": 0}, "axis 0: contradicts log-softmax along 1"),
        ({"log_softmax": 0, "axis": 1}, "axis 1: contradicts log-softmax along 0"),
        ({"temperature": 2.0}, "neither predictions nor targets are logits"),
        ({"temperature": 2.0, "losses": ("bce",)}, "neither predictions nor targets are logits"),
        ({"weight": True}, "weight: kl has none"),
        ({"weight": True, "losses": ("kl", "bce"), "predictions_are": "probs"}, "weight: kl has none"),
        ({"pos_weight": True}, "pos_weight: goes with"),
        ({"pos_weight": True, "losses": ("bce",)}, "pos_weight: goes with"),
        ({"pos_weight": True, "losses": ("bce",), "log_softmax": 1}, "pos_weight: goes with"),
        ({"pos_weight": True, "losses": ("kl", "bce"), "log_softmax": 1}, "pos_weight: goes with"),
        ({"broadcast": True, "trim_axis": True}, "trim_axis: does not go with --broadcast"),
        ({"ignore_value": "x"}, "ignore_value 'x': expected a number"),
        ({"ignore_value": True}, "ignore_value True: expected a number"),
        ({"worst": -1}, "worst -1: expected a whole number, 0 or more"),
        ({"worst": 1.0}, r"worst 1\.0: expected a whole number"),
        ({"worst": True}, "worst True: expected a whole number"),
        ({"blocks_of": 1}, "blocks_of 1: expected a whole number, 2 or more"),
        ({"blocks_of": 2.5}, r"blocks_of 2\.5: expected a whole number"),
        ({"quantiles": [0.5, 1.5]}, r"quantiles 1\.5: expected numbers between 0 and 1, such as 0\.999"),
        ({"quantiles": [-0.1]}, r"quantiles -0\.1: expected numbers between 0 and 1"),
        ({"quantiles": [math.nan]}, "quantiles nan: expected numbers between 0 and 1"),
    ],
)
def test_unknown_and_contradicting_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolve_spec(**options)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_a_temperature_that_is_not_finite_and_above_zero_is_refused(temperature: float) -> None:
    with pytest.raises(UsageError, match="expected a finite number above 0"):
        resolve_spec(log_softmax=1, temperature=temperature)


@pytest.mark.parametrize(
    "options",
    [
        {"log_softmax": 1},
        {"predictions_are": "logits"},
        {"targets_are": "logits"},
        {"losses": ("bce",), "predictions_are": "logits"},
    ],
)
def test_a_temperature_goes_with_logits_on_either_side(options: dict[str, Any]) -> None:
    assert resolve_spec(temperature=2.0, **options).temperature == 2.0


@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("pos_weight", [False, True])
def test_bce_with_logits_takes_both_weights(weight: bool, pos_weight: bool) -> None:
    resolve_spec(losses=("bce",), predictions_are="logits", weight=weight, pos_weight=pos_weight)


@pytest.mark.parametrize(
    ("predictions_are", "targets_are"),
    list(product([None, "log-probs", "probs", "logits"], [None, "probs", "log-probs", "logits", "labels"])),
)
@pytest.mark.parametrize("loss", ["kl", "bce"])
def test_every_pair_of_spaces_is_computable_for_one_loss(
    loss: str, predictions_are: str | None, targets_are: str | None
) -> None:
    spec = resolve_spec(losses=(loss,), predictions_are=predictions_are, targets_are=targets_are)
    assert spec.predictions_are == (predictions_are or {"kl": "log-probs", "bce": "probs"}[loss])
    assert spec.targets_are == (targets_are or "probs")


@pytest.mark.parametrize(
    ("options", "selects"),
    [({}, False), ({"mask": True}, True), ({"ignore_value": 0}, True), ({"trim_axis": True}, False)],
)
def test_a_mask_or_an_ignored_value_select(options: dict[str, Any], selects: bool) -> None:
    assert resolve_spec(**options).selects is selects


def test_quantiles_come_to_those_always_told_once_and_in_order() -> None:
    spec = resolve_spec(quantiles=[1, 0.75, 0.5, 0.25, 0.75, 0])
    assert spec.quantiles == (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
    assert {type(quantile) for quantile in spec.quantiles} == {float}


def test_an_ignored_value_may_be_a_whole_number() -> None:
    ignored = resolve_spec(ignore_value=-100).ignore_value
    assert (ignored, type(ignored)) == (-100.0, float)


def test_every_refusal_is_one_line() -> None:
    with pytest.raises(UsageError) as refusal:
        resolve_spec(losses=("kl", "bce"))
    assert "\n" not in str(refusal.value)
