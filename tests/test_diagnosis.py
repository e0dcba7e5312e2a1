"""What is said of what was observed: findings, their order, and what they do not say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kldiv_cli.alignment import Alignment
from kldiv_cli.diagnosis import find, find_odd_distributions, find_reduction
from kldiv_cli.evidence import Evidence, is_suspicious
from kldiv_cli.findings import Finding
from kldiv_cli.likeness import Likeness
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.reductions import divisors_of, reduce_sum
from kldiv_cli.spec import Loss, resolve_spec


def findings(
    observations: Observations | None = None,
    *,
    loss: Loss = "kl",
    shape: tuple[int, ...] = (4, 3),
    axis: int = 1,
    total: float = 40.0,
    dtypes: tuple[str, str] = ("f8", "f8"),
    options: dict[str, Any] | None = None,
    **evidence: Any,
) -> tuple[Finding, ...]:
    return find(
        Evidence(
            spec=resolve_spec(losses=(loss,), axis=axis, **(options or {})),
            loss=loss,
            shape=shape,
            axis=axis,
            scalars=reduce_sum(total, divisors_of(shape, axis), batchmean=loss == "kl"),
            observed=observations or Observations(),
            dtypes=tuple(map(np.dtype, dtypes)),
            **evidence,
        )
    )


def only(*args: Any, **kwargs: Any) -> Finding:
    (finding,) = findings(*args, **kwargs)
    return finding


# Nothing to say


@pytest.mark.parametrize("loss", ["kl", "bce"])
def test_there_is_no_finding_on_data_as_it_should_be(loss: Loss) -> None:
    assert findings(loss=loss) == ()


def test_nothing_counting_is_a_warning_and_the_only_one() -> None:
    observed = Observations(nan_terms=Tally(1, 0, math.nan))
    finding = only(observed, shape=(0, 3), differ=False)
    assert (finding.id, finding.severity, finding.count) == ("empty", "warning", 0)
    assert finding.message == "the arrays are empty: there is nothing to measure"


@pytest.mark.parametrize(
    ("name", "suspicious"),
    [
        ("predictions_above_zero", (True, False)),
        ("predictions_unnormalised", (True, False)),
        ("targets_above_zero", (False, True)),
        ("targets_below_zero", (False, True)),
        ("targets_unnormalised", (False, True)),
        ("predictions_padding", (False, False)),
        ("infinite_terms", (False, False)),
    ],
)
def test_a_second_look_is_taken_only_where_values_are_not_what_they_were_taken_for(
    name: str, suspicious: tuple[bool, bool]
) -> None:
    assert is_suspicious(Observations(**{name: Tally(1, 0, 2.0)})) == suspicious
    assert is_suspicious(Observations()) == (False, False)


# What the predictions are

UNNORMALISED = Observations(predictions_unnormalised=Tally(3, 1, 7.5))
ABOVE_ZERO = UNNORMALISED._replace(predictions_above_zero=Tally(5, 4, 3.25))


@pytest.mark.parametrize("observed", [UNNORMALISED, ABOVE_ZERO])
def test_predictions_that_look_like_probabilities_are_told_first(observed: Observations) -> None:
    finding = only(observed, predictions_look=Likeness("probs", 1))
    assert (finding.id, finding.severity, finding.option) == (
        "predictions-probs",
        "warning",
        "--predictions-are probs",
    )
    assert (finding.count, finding.place, finding.value) == (3, (1,), 7.5)
    assert finding.message == (
        "the predictions look like probabilities, not log-probabilities: the exp of 3 distributions adds up "
        "to something else than 1, worst 7.5 at [1]; say --predictions-are probs"
    )


def test_probabilities_along_another_axis_need_both_options() -> None:
    finding = only(UNNORMALISED, predictions_look=Likeness("probs", 0))
    assert (finding.id, finding.option) == ("predictions-probs", "--predictions-are probs --axis 0")


def test_predictions_above_zero_are_taken_for_logits() -> None:
    finding = only(ABOVE_ZERO, predictions_look=Likeness("logits"))
    assert (finding.id, finding.severity, finding.option) == (
        "predictions-logits",
        "warning",
        "--log-softmax 1",
    )
    assert (finding.count, finding.place, finding.value) == (5, (1, 1), 3.25)
    assert finding.message == (
        "the predictions are no log-probabilities: 5 elements above 0, worst 3.25 at [1, 1]; "
        "if they are logits, say --log-softmax 1"
    )


def test_predictions_normalised_along_another_axis_are_told_which() -> None:
    finding = only(UNNORMALISED, predictions_look=Likeness("log-probs", 0))
    assert (finding.id, finding.severity, finding.option) == ("wrong-axis", "warning", "--axis 0")
    assert (finding.count, finding.place, finding.value) == (3, (1,), 7.5)
    assert "along axis 0, not along axis 1" in finding.message


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (
            "log-probs",
            "3 distributions of the predictions, whose exp adds up to something else than 1, worst 7.5",
        ),
        ("probs", "3 distributions of the predictions adding up to something else than 1, worst 7.5 at [1]"),
    ],
)
def test_predictions_that_are_not_normalised_are_told_by_the_worst_sum(space: str, says: str) -> None:
    look = Likeness("logits" if space == "log-probs" else "probs")
    finding = only(UNNORMALISED, options={"predictions_are": space}, predictions_look=look)
    assert (finding.id, finding.severity, finding.count) == ("predictions-unnormalised", "warning", 3)
    assert finding.message.startswith(says)


PADDING = Observations(predictions_padding=Tally(2, 1, 3.0))


@pytest.mark.parametrize(
    ("observed", "look", "id"),
    [
        (UNNORMALISED, Likeness("logits"), "predictions-unnormalised"),
        (UNNORMALISED, Likeness("probs", 1), "predictions-probs"),
        (UNNORMALISED, Likeness("log-probs", 0), "wrong-axis"),
        (PADDING, None, "predictions-padding"),
    ],
)
def test_a_count_of_every_fourth_distribution_says_so(
    observed: Observations, look: Likeness | None, id: str
) -> None:
    for sampled in (True, False):
        finding = only(observed, predictions_look=look, sampled=sampled, shape=(400, 3))
        assert finding.id == id
        assert ("the predictions (of every fourth)" in finding.message) is sampled


def test_all_targets_are_counted_where_only_every_fourth_of_the_predictions_is() -> None:
    observed = Observations(targets_unnormalised=Tally(3, 1, 7.5), targets_padding=Tally(2, 1, 0.0))
    told = findings(observed, targets_look=Likeness("probs", 1), sampled=True, shape=(400, 3))
    assert [f.id for f in told] == ["targets-padding", "targets-unnormalised"]
    assert not any("of every fourth" in f.message for f in told)


@pytest.mark.parametrize(("count", "found"), [(2, False), (3, True), (4, True)])
def test_a_softmax_of_probabilities_is_found_where_most_distributions_are(count: int, found: bool) -> None:
    observed = Observations(predictions_probable=Tally(count, 0, 1.0))
    obtained = findings(observed, options={"log_softmax": 1})
    assert [f.id for f in obtained] == ["softmax-of-probs"] * found
    assert all(f.option == "--predictions-are probs" for f in obtained)


# What the targets are

BELOW_ZERO = Observations(targets_below_zero=Tally(6, 4, -3.5), targets_unnormalised=Tally(3, 1, -7.5))


def test_targets_that_look_like_log_probabilities_are_told_the_flag() -> None:
    finding = only(BELOW_ZERO, targets_look=Likeness("log-probs", 1))
    assert (finding.id, finding.severity, finding.option) == ("targets-log-probs", "warning", "--log-target")
    assert (finding.count, finding.place, finding.value) == (6, (1, 1), -3.5)
    elsewhere = only(BELOW_ZERO, targets_look=Likeness("log-probs", 0))
    assert elsewhere.option == "--log-target --axis 0"


def test_targets_below_zero_are_taken_for_logits() -> None:
    finding = only(BELOW_ZERO, targets_look=Likeness("logits"))
    assert (finding.id, finding.option) == ("targets-logits", "--targets-are logits")
    assert (finding.count, finding.place, finding.value) == (6, (1, 1), -3.5)


def test_targets_below_zero_that_are_all_padding_are_no_logits() -> None:
    observed = Observations(
        targets_below_zero=Tally(3, 3, -100.0),
        targets_padding=Tally(1, 1, -300.0),
        nan_terms=Tally(3, 3, math.nan),
    )
    obtained = findings(observed, targets_look=Likeness("logits"))
    assert [f.id for f in obtained] == ["targets-padding", "nan-terms"]
    assert obtained[0].option == "--ignore-value -100"


def test_probabilities_in_place_of_log_targets_are_told_to_drop_the_flag() -> None:
    observed = Observations(targets_unnormalised=Tally(3, 1, 4.5))
    finding = only(observed, options={"log_target": True}, targets_look=Likeness("probs", 1))
    assert (finding.id, finding.severity, finding.option) == (
        "targets-probs",
        "warning",
        "--targets-are probs",
    )
    assert finding.message.endswith("worst 4.5 at [1]; drop --log-target")


def test_both_along_another_axis_are_told_once() -> None:
    observed = UNNORMALISED._replace(targets_unnormalised=Tally(2, 0, 0.5))
    told = findings(observed, predictions_look=Likeness("log-probs", 0), targets_look=Likeness("probs", 0))
    assert [(f.id, f.option) for f in told] == [("wrong-axis", "--axis 0")]


@pytest.mark.parametrize(
    ("name", "space", "sum", "filled", "option"),
    [
        ("predictions", "log-probs", 3.0, "all 0", "--mask FILE"),
        ("predictions", "log-probs", 1e-43, "all -100", "--mask FILE"),
        ("predictions", "log-probs", 0.0, "all of probability 0", "--mask FILE"),
        ("predictions", "probs", 0.0, "all 0", "--mask FILE"),
        ("predictions", "logits", -math.inf, "of equal logits", "--mask FILE"),
        ("targets", "probs", 0.0, "all 0", "--mask FILE"),
        ("targets", "probs", -300.0, "all -100", "--ignore-value -100"),
        ("targets", "log-probs", 3.0, "all 0", "--mask FILE"),
        ("targets", "log-probs", 1e-43, "all -100", "--ignore-value -100"),
        ("targets", "log-probs", 0.0, "all of probability 0", "--mask FILE"),
        ("targets", "logits", -math.inf, "of equal logits", "--mask FILE"),
    ],
)
def test_padding_is_told_with_what_it_is_filled_with(
    name: str, space: str, sum: float, filled: str, option: str
) -> None:
    observed = Observations(**{f"{name}_padding": Tally(2, 1, sum)})
    finding = only(observed, options={f"{name}_are": space})
    assert (finding.id, finding.severity, finding.option) == (f"{name}-padding", "warning", option)
    assert (finding.count, finding.place) == (2, (1,))
    assert finding.message == (
        f"2 distributions of the {name} {filled}, first at [1]: padding that counts? "
        f"leave it out with {option}"
    )


def test_where_all_distributions_are_alike_none_is_padding() -> None:
    observed = Observations(predictions_padding=Tally(4, 0, -math.inf))
    assert findings(observed, options={"predictions_are": "logits"}) == ()


@pytest.mark.parametrize(("count", "told"), [(50, True), (90, True), (91, False), (100, False)])
def test_of_every_fourth_nearly_all_are_all(count: int, told: bool) -> None:
    observed = Observations(predictions_padding=Tally(count, 0, 3.0))
    assert bool(findings(observed, shape=(400, 3), sampled=True)) is told
    assert findings(observed, shape=(400, 3)) != ()


# How both belong together


def test_the_same_data_twice_is_a_warning() -> None:
    finding = only(differ=False)
    assert (finding.id, finding.severity) == ("identical", "warning")


def alignment(**changes: Any) -> Alignment:
    at_chance = Alignment(
        rows=400,
        agreement=0.1,
        chance=0.1,
        confidence=0.6,
        excess=1.5,
        information_predictions=1.0,
        information_targets=1.0,
        distance=0.0,
    )
    return at_chance._replace(**changes)


def test_rows_in_another_order_are_a_warning_with_agreement_and_chance() -> None:
    finding = only(alignment=alignment())
    assert (finding.id, finding.severity, finding.count, finding.value) == ("misaligned", "warning", 400, 0.1)
    assert "10.0% of 400 sampled distributions, where chance gives 10.0%" in finding.message


def test_rows_that_agree_are_not_remarked_on() -> None:
    assert findings(alignment=alignment(agreement=0.3)) == ()


WITH_LOGITS: dict[str, Any] = {"loss": "bce", "options": {"predictions_are": "logits"}}
OUTSIDE = Observations(logits_outside=Tally(1))


def test_a_sigmoid_of_probabilities_is_a_warning_that_names_what_they_are() -> None:
    finding = only(**WITH_LOGITS)
    assert finding == Finding(
        id="sigmoid-of-probs",
        severity="warning",
        message="the sigmoid is taken of predictions that all lie within [0, 1]: "
        "if they are probabilities already, drop --predictions-are logits",
        count=12,
        option="--predictions-are probs",
    )
    assert findings(OUTSIDE, **WITH_LOGITS) == ()


def test_a_few_logits_may_lie_within_the_unit_interval_by_chance() -> None:
    assert findings(**WITH_LOGITS, shape=(2, 4)) == ()
    assert only(**WITH_LOGITS, shape=(3, 3)).count == 9


def test_no_sigmoid_is_remarked_on_where_none_is_taken() -> None:
    assert findings(loss="bce") == ()
    assert findings(loss="bce", options={"log_softmax": 1}) == ()
    assert findings(options={"log_softmax": 1}) == ()


# Terms


def test_terms_that_are_zero_by_the_limit_are_a_note_that_names_the_other_policy() -> None:
    finding = only(Observations(zero_terms=Tally(2, 4, 0.0)))
    assert finding == Finding(
        id="zero-terms",
        severity="note",
        message="2 terms 0 by the limit, first at [1, 1]: PyTorch gives nan there; "
        "--zero-policy torch does too",
        count=2,
        place=(1, 1),
        value=0.0,
        option="--zero-policy torch",
    )


def test_terms_that_are_nan_only_by_the_policy_are_a_warning_that_names_the_limit() -> None:
    finding = only(Observations(zero_terms=Tally(2, 4, math.nan)), options={"zero_policy": "torch"})
    assert (finding.id, finding.severity) == ("zero-terms", "warning")
    assert finding.option == "--zero-policy limit"
    assert "first at [1, 1]" in finding.message
    assert "--zero-policy limit gives 0" in finding.message


@pytest.mark.parametrize(
    ("name", "id", "value", "option", "says"),
    [
        ("infinite_terms", "infinite-terms", math.inf, None, "rules out what the target holds possible"),
        ("nan_terms", "nan-terms", math.nan, "--mask FILE", "nan or infinite, or a probability is below 0"),
        ("clamped_terms", "clamped-terms", 100.0, "--predictions-are logits", "is not the true loss"),
    ],
)
def test_a_count_becomes_a_warning_with_its_first_place_and_value(
    name: str, id: str, value: float, option: str | None, says: str
) -> None:
    finding = only(Observations(**{name: Tally(3, 7, value)}), loss="bce")
    assert (finding.id, finding.severity, finding.count, finding.place) == (id, "warning", 3, (2, 1))
    assert finding.value is value
    assert finding.option == option
    assert "3 terms" in finding.message
    assert "first" in finding.message
    assert "[2, 1]" in finding.message
    assert says in finding.message


def test_the_clamp_of_a_softmax_can_not_be_helped_by_logits() -> None:
    finding = only(Observations(clamped_terms=Tally(3, 7, 100.0)), loss="bce", options={"log_softmax": 1})
    assert (finding.id, finding.option) == ("clamped-terms", None)


def test_targets_outside_the_unit_interval_are_a_warning_with_logits_only() -> None:
    observed = OUTSIDE._replace(targets_outside=Tally(3, 7, 2.0))
    assert findings(observed, loss="bce") == ()
    finding = only(observed, **WITH_LOGITS)
    assert (finding.id, finding.severity, finding.count, finding.place, finding.value) == (
        "targets-outside",
        "warning",
        3,
        (2, 1),
        2.0,
    )
    assert "labels of -1 and 1 are to be mapped to 0 and 1" in finding.message


def test_saturated_probabilities_are_a_note_unless_terms_are_clamped() -> None:
    saturated = Observations(saturated_predictions=Tally(3, 7, 1.0))
    finding = only(saturated, loss="bce")
    assert (finding.id, finding.severity, finding.option) == (
        "saturated",
        "note",
        "--predictions-are logits",
    )
    both = saturated._replace(clamped_terms=Tally(1, 2, 100.0))
    assert only(both, loss="bce").id == "clamped-terms"


def test_one_term_is_spoken_of_in_the_singular() -> None:
    finding = only(Observations(infinite_terms=Tally(1, 0, math.inf)))
    assert finding.message.startswith("1 term infinite, first inf at [0, 0]:")


@pytest.mark.parametrize(
    ("dtypes", "rounding"),
    [
        (("f2", "f8"), 2.0**-7),
        (("f8", "f2"), 2.0**-7),
        (("f4", "f4"), 2.0**-20),
        (("f4", "u1"), 2.0**-20),
        (("f8", "f8"), 2.0**-40),
        (("i4", "u1"), 2.0**-40),
    ],
)
def test_a_negative_divergence_is_a_note_within_the_rounding_of_the_storage_and_a_warning_beyond(
    dtypes: tuple[str, str], rounding: float
) -> None:
    within = only(Observations(negative_distributions=Tally(1, 2, -rounding)), dtypes=dtypes)
    beyond = only(Observations(negative_distributions=Tally(1, 2, -1.01 * rounding)), dtypes=dtypes)
    assert (within.id, within.severity) == ("negative-kl", "note")
    assert "within the rounding of the storage type" in within.message
    assert (beyond.id, beyond.severity) == ("negative-kl", "warning")
    assert "not normalised" in beyond.message


@pytest.mark.parametrize("bfloat16", [(True, False), (False, True), (True, True)])
def test_a_negative_divergence_is_within_the_rounding_of_bfloat16(bfloat16: tuple[bool, bool]) -> None:
    for least, severity in ((-(2.0**-4), "note"), (-0.07, "warning")):
        observed = Observations(negative_distributions=Tally(1, 2, least))
        finding = only(observed, dtypes=("f4", "f4"), bfloat16=bfloat16)
        assert (finding.id, finding.severity) == ("negative-kl", severity)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4"])
def test_a_divergence_below_zero_by_the_rounding_of_float64_is_not_spoken_of(dtype: str) -> None:
    for least, told in ((-1e-15, False), (-2.2e-16, False), (-1.1e-15, True)):
        observed = Observations(negative_distributions=Tally(1, 2, least))
        assert bool(findings(observed, dtypes=(dtype, dtype))) is told


def test_a_negative_divergence_is_told_after_its_cause() -> None:
    observed = UNNORMALISED._replace(negative_distributions=Tally(1, 2, -3.0))
    told = [finding.id for finding in findings(observed, predictions_look=Likeness("probs", 1))]
    assert told == ["predictions-probs", "negative-kl"]


def test_a_negative_divergence_is_placed_among_the_distributions() -> None:
    observed = Observations(negative_distributions=Tally(2, 5, -0.5))
    finding = only(observed, shape=(2, 7, 4), axis=1)
    assert finding.place == (1, 1)
    assert finding.message.startswith("KL below 0 in 2 distributions, least -0.5 at [1, 1]:")


def test_the_divergence_of_a_lone_distribution_has_no_place_but_itself() -> None:
    finding = only(Observations(negative_distributions=Tally(1, 0, -0.5)), shape=(5,), axis=0)
    assert (finding.count, finding.place, finding.value) == (1, (), -0.5)
    assert finding.message.startswith("KL below 0 in 1 distribution, ")


def test_several_findings_come_in_the_order_of_the_list() -> None:
    observed = ABOVE_ZERO._replace(
        predictions_padding=Tally(1, 2, 3.0),
        targets_unnormalised=Tally(2, 0, 0.5),
        infinite_terms=Tally(1, 0, math.inf),
        nan_terms=Tally(1, 1, math.nan),
        zero_terms=Tally(1, 2, 0.0),
    )
    told = findings(
        observed, predictions_look=Likeness("logits"), targets_look=Likeness("probs"), differ=False
    )
    assert [f.id for f in told] == [
        "predictions-padding",
        "predictions-logits",
        "targets-unnormalised",
        "identical",
        "zero-terms",
        "infinite-terms",
        "nan-terms",
    ]


# Precision


@pytest.mark.parametrize("dtypes", [("f2", "f2"), ("f2", "f8"), ("f4", "f2")])
@pytest.mark.parametrize(
    ("shape", "floor"),
    [((4, 3), 2.0**-12 * math.log(3)), ((4, 2), 2.0**-12), ((2, 1000), 2.0**-12 * math.log(1000))],
)
def test_a_mean_below_the_rounding_of_float16_is_a_note_with_the_floor(
    dtypes: tuple[str, str], shape: tuple[int, ...], floor: float
) -> None:
    for sign in (1, -1):
        finding = only(shape=shape, total=sign * 0.99 * floor * shape[0], dtypes=dtypes)
        assert (finding.id, finding.severity) == ("low-precision", "note")
        assert finding.value == pytest.approx(floor)
    assert findings(shape=shape, total=1.01 * floor * shape[0], dtypes=dtypes) == ()


@pytest.mark.parametrize("bfloat16", [(True, False), (False, True), (True, True)])
def test_a_mean_below_the_rounding_of_bfloat16_is_a_note_with_its_floor(
    bfloat16: tuple[bool, bool],
) -> None:
    floor = 2.0**-9 * math.log(3)
    finding = only(total=0.99 * floor * 4, dtypes=("f4", "f4"), bfloat16=bfloat16)
    assert (finding.id, finding.severity, finding.value) == ("low-precision", "note", pytest.approx(floor))
    assert finding.message.startswith("bfloat16 has two digits: ")
    assert only(total=1e-9, dtypes=("f2", "f4")).message.startswith("float16 has three digits: ")
    assert findings(total=1.01 * floor * 4, dtypes=("f4", "f4"), bfloat16=bfloat16) == ()


def test_no_precision_is_remarked_on_but_that_of_float16_with_kl() -> None:
    assert findings(total=1e-9, dtypes=("f4", "f8")) == ()
    assert findings(total=1e-9, dtypes=("f2", "f2"), loss="bce") == ()
    assert findings(total=0.0, dtypes=("f2", "f2")) == ()
    assert findings(total=math.nan, dtypes=("f2", "f2")) == ()


# Distributions whose divergence is not finite


def test_odd_distributions_are_counted_and_placed() -> None:
    observed = Observations(infinite_terms=Tally(2, 5, math.inf), nan_terms=Tally(1, 3, math.nan))
    infinite, undefined = find_odd_distributions(observed, (2, 4))
    assert (infinite.id, infinite.severity, infinite.count, infinite.place) == (
        "infinite-kl",
        "warning",
        2,
        (1, 1),
    )
    assert (undefined.id, undefined.count, undefined.place, undefined.option) == (
        "nan-kl",
        1,
        (0, 3),
        "--mask FILE",
    )
    assert find_odd_distributions(Observations(), (2, 4)) == ()


# The reduction that was asked for


def remarked(
    reduction: str | None, shape: tuple[int, ...] = (4, 3), axis: int = 1, loss: Loss = "kl"
) -> tuple[Finding, ...]:
    scalars = reduce_sum(1.0, divisors_of(shape, axis), batchmean=loss == "kl")
    return find_reduction(loss, reduction, scalars, shape)


def test_asking_for_the_mean_of_kl_is_a_note_that_names_distmean() -> None:
    (finding,) = remarked("mean")
    assert finding == Finding(
        id="which-mean",
        severity="note",
        message="mean divides by all 12 elements, as in PyTorch; the mean KL divergence of the "
        "4 distributions is --reduction distmean",
        option="--reduction distmean",
    )


@pytest.mark.parametrize(
    ("shape", "axis", "batch", "distributions"),
    [
        pytest.param((2, 8, 5), 2, 2, 16, id="a sequence"),
        pytest.param((2, 5, 8), 1, 2, 16, id="classes in the middle"),
        pytest.param((5,), 0, 5, 1, id="a vector"),
        pytest.param((5, 8), 0, 5, 8, id="classes down a matrix"),
    ],
)
def test_asking_for_a_batchmean_that_is_not_distmean_is_a_note_with_both_divisors(
    shape: tuple[int, ...], axis: int, batch: int, distributions: int
) -> None:
    (finding,) = remarked("batchmean", shape, axis)
    assert (finding.id, finding.severity) == ("which-mean", "note")
    assert finding.option == "--reduction distmean"
    assert f"divides by the first dimension, {batch}," in finding.message
    assert f"{distributions} distribution{'s' * (distributions != 1)} is" in finding.message


@pytest.mark.parametrize(("shape", "axis"), [((4, 3), 1), ((3, 1, 5), 2), ((), 0), ((3, 3), 0), ((1,), 0)])
def test_a_batchmean_that_is_distmean_is_not_remarked_on(shape: tuple[int, ...], axis: int) -> None:
    assert remarked("batchmean", shape, axis) == ()


@pytest.mark.parametrize("reduction", [None, "none", "sum", "distmean"])
def test_no_other_reduction_is_remarked_on(reduction: str | None) -> None:
    assert remarked(reduction, (2, 8, 5), 2) == ()


@pytest.mark.parametrize("reduction", ["mean", "batchmean"])
def test_the_mean_of_bce_is_what_it_says(reduction: str) -> None:
    assert remarked(reduction, (2, 8, 5), 2, "bce") == ()
