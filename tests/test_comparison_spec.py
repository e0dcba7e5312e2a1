from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from comparisons import QUANTILES, SPACES

from kldiv_cli.comparison_spec import ComparisonSpec, resolve_comparison
from kldiv_cli.errors import UsageError


def test_two_arrays_of_logits_along_the_last_axis_are_the_default() -> None:
    settings = resolve_comparison()
    assert (settings.top_k, settings.ignore_value) == (5, None)
    spec = settings.spec
    assert (spec.losses, spec.axis, spec.temperature) == (("kl",), -1, None)
    assert (spec.predictions_are, spec.targets_are) == ("logits", "logits")
    assert spec.log_softmax
    assert spec.targets_softmax
    assert (spec.worst, spec.blocks_of, spec.selects) == (0, None, False)


@pytest.mark.parametrize("candidate", SPACES)
@pytest.mark.parametrize("reference", SPACES)
def test_the_candidate_stands_for_predictions_and_the_reference_for_targets(
    reference: str, candidate: str
) -> None:
    spec = resolve_comparison(reference_are=reference, candidate_are=candidate).spec
    assert (spec.predictions_are, spec.targets_are) == (candidate, reference)
    assert spec.log_softmax == (candidate == "logits")
    assert spec.targets_softmax == (reference == "logits")
    assert spec.roles == ("candidate", "reference")


def test_quartiles_are_always_told_and_given_quantiles_come_to_them_in_order() -> None:
    assert resolve_comparison().spec.quantiles == QUANTILES
    settings = resolve_comparison(quantiles=[0.999, 0.3, 0, 0.25])
    assert settings.spec.quantiles == tuple(sorted({*QUANTILES, 0.0, 0.3}))


def test_options_are_taken_as_given() -> None:
    settings = resolve_comparison(
        axis=1, temperature=2.5, mask=True, trim_axis=True, top_k=3, worst=4, blocks_of=8
    )
    spec = settings.spec
    assert (spec.axis, spec.temperature, spec.mask, spec.trim_axis) == (1, 2.5, True, True)
    assert (settings.top_k, spec.worst, spec.blocks_of) == (3, 4, 8)


def test_an_ignored_value_is_one_of_labels_rather_than_of_the_reference() -> None:
    settings = resolve_comparison(labels=True, ignore_value=-100)
    assert (settings.ignore_value, settings.spec.ignore_value) == (-100, None)


@pytest.mark.parametrize(("reference", "candidate"), [("logits", "probs"), ("log-probs", "logits")])
def test_a_temperature_needs_logits_on_one_side_only(reference: str, candidate: str) -> None:
    settings = resolve_comparison(reference_are=reference, candidate_are=candidate, temperature=2)
    assert settings.spec.temperature == 2


def test_what_was_resolved_does_not_change() -> None:
    settings = resolve_comparison()
    assert isinstance(settings, ComparisonSpec)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.top_k = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_are": "labels"}, "^reference_are 'labels': expected one of log-probs, probs, logits$"),
        ({"candidate_are": "logit"}, "^candidate_are 'logit': expected one of"),
        ({"ignore_value": -100}, "^ignore_value: is one of labels; add --labels FILE"),
        ({"ignore_value": "x", "labels": True}, "^ignore_value 'x': expected a number"),
        ({"top_k": 0}, "^top_k 0: expected a whole number, 1 or more"),
        ({"top_k": -1}, "^top_k -1"),
        ({"top_k": 2.0}, "^top_k 2.0"),
        ({"top_k": True}, "^top_k True"),
        ({"temperature": 0.0}, "^temperature 0.0: expected a finite number above 0"),
        ({"temperature": math.inf}, "^temperature inf"),
        ({"temperature": math.nan}, "^temperature nan"),
        ({"temperature": -1.0}, "^temperature -1.0"),
        (
            {"temperature": 2.0, "reference_are": "probs", "candidate_are": "log-probs"},
            "^temperature: divides logits, but neither reference nor candidate are logits",
        ),
        ({"axis": 1.0}, "^axis"),
        ({"axis": True}, "^axis"),
        ({"quantiles": [1.5]}, "^quantiles 1.5: expected numbers between 0 and 1"),
        ({"quantiles": [math.nan]}, "^quantiles nan"),
        ({"worst": -1}, "^worst -1: expected a whole number, 0 or more"),
        ({"blocks_of": 1}, "^blocks_of 1: expected a whole number, 2 or more"),
    ],
)
def test_options_that_can_not_be_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_comparison(**options)
