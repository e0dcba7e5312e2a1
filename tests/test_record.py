"""The record behind JSON: its keys are a contract, and no value of it is a bare nan."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kldiv_cli.estimates import share_of
from kldiv_cli.evaluation import Evaluation, Input
from kldiv_cli.findings import Finding
from kldiv_cli.map_view import MapView
from kldiv_cli.octaves import Octaves
from kldiv_cli.record import direction, evaluation_record, number_in, split_groups
from kldiv_cli.reductions import divisors_of, exact_sum, reduce_sum
from kldiv_cli.spec import QUANTILES, Spec
from kldiv_cli.statistics import Statistics, percentile_name
from kldiv_cli.target_split import Group, TargetSplit

STATISTICS = Statistics(
    of="distributions",
    count=2,
    mean=0.75,
    standard_error=0.5,
    minimum=0.25,
    maximum=1.25,
    percentiles={percentile_name(quantile): 0.25 + quantile for quantile in QUANTILES},
    exact=True,
)


def evaluation(total: float = 1.5, shape: tuple[int, ...] = (2, 4), **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "loss": "kl",
        "predictions": Input(address="student.npy", shape=shape, dtype="float32", space="logits"),
        "targets": Input(address="dump.h5::/probs", shape=shape, dtype="float64", space="probs"),
        "shape": shape,
        "axis": len(shape) - 1,
        "settings": Spec(predictions_are="logits", log_softmax=True, temperature=2.0),
        "scalars": reduce_sum(total, divisors_of(shape, len(shape) - 1), batchmean=True),
        "statistics": STATISTICS,
    }
    return Evaluation(**{**fields, **changes})


def group(*losses: float) -> Group:
    return Group(len(losses), exact_sum(np.array(losses)))


def strict(record: dict[str, Any]) -> Any:
    """Through JSON and back, where a bare nan or infinity is refused."""
    return json.loads(json.dumps(record, allow_nan=False))


def test_every_field_of_the_result_stands_under_its_name() -> None:
    assert strict(evaluation_record(evaluation())) == {
        "schema": "kldiv/1",
        "loss": "kl",
        "direction": "KL(targets ‖ predictions)",
        "predictions": {"address": "student.npy", "shape": [2, 4], "dtype": "float32", "space": "logits"},
        "targets": {"address": "dump.h5::/probs", "shape": [2, 4], "dtype": "float64", "space": "probs"},
        "settings": {
            "log_softmax": 1,
            "temperature": 2.0,
            "zero_policy": "limit",
            "broadcast": False,
            "ignore_value": None,
            "trim_axis": False,
        },
        "shape": [2, 4],
        "axis": 1,
        "elements": 8,
        "distributions": 2,
        "batch": 2,
        "sum": 1.5,
        "mean": 0.1875,
        "batchmean": 0.75,
        "distmean": 0.75,
        "statistics": {
            "of": "distributions",
            "count": 2,
            "mean": 0.75,
            "standard_error": 0.5,
            "minimum": 0.25,
            "p0.1": 0.251,
            "p1": 0.26,
            "p5": 0.3,
            "p10": 0.35,
            "p50": 0.75,
            "p90": 1.15,
            "p95": 1.2,
            "p99": 1.24,
            "p99.9": 1.249,
            "maximum": 1.25,
            "exact": True,
        },
        "findings": [],
    }


def test_a_digest_stands_beside_its_input_only_where_one_was_asked_for() -> None:
    plain = evaluation()
    record = evaluation_record(
        replace(plain, targets=plain.targets._replace(sha256="ab"), weight=plain.targets)
    )
    assert record["targets"]["sha256"] == "ab"
    assert all("sha256" not in record[role] for role in ("predictions", "weight"))


@pytest.mark.parametrize("reduction", ["sum", "mean", "batchmean", "distmean"])
def test_a_chosen_reduction_leaves_the_others_out(reduction: Any) -> None:
    record = evaluation_record(evaluation(), reduction)
    assert record.keys() & {"sum", "mean", "batchmean", "distmean"} == {reduction}


def test_bce_has_a_null_for_batchmean_and_its_own_direction() -> None:
    record = evaluation_record(
        evaluation(loss="bce", scalars=reduce_sum(1.5, divisors_of((2, 4), 1), batchmean=False)),
    )
    assert record["batchmean"] is None
    assert record["direction"] == "BCE(predictions, targets)"
    assert "nonfinite" not in record


def test_direction_names_the_files_where_they_are_given() -> None:
    assert direction(evaluation(), "q.npy", "p.npy") == "KL(p.npy ‖ q.npy)"
    assert direction(evaluation(loss="bce"), "q.npy", "p.npy") == "BCE(q.npy, p.npy)"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_json_has_no_number_for_is_null_and_named_beside(value: float) -> None:
    record = strict(evaluation_record(evaluation(value)))
    for name in ("sum", "mean", "batchmean", "distmean"):
        assert record[name] is None
        read = float(record["nonfinite"][name])
        assert read == value or math.isnan(read) == math.isnan(value)


def test_a_finite_result_has_no_list_of_nonfinite_values() -> None:
    assert "nonfinite" not in evaluation_record(evaluation())


def test_empty_arrays_have_a_sum_and_no_means() -> None:
    record = strict(evaluation_record(evaluation(0.0, (0, 4))))
    assert (record["sum"], record["mean"], record["elements"]) == (0.0, None, 0)
    assert record["nonfinite"] == {"mean": "nan", "batchmean": "nan", "distmean": "nan"}


def test_top1_stands_after_the_statistics_with_its_count_share_and_error() -> None:
    record = strict(evaluation_record(evaluation(top1=share_of(1, 2))))
    assert record["top1"] == {"count": 1, "share": 0.5, "standard_error": 0.5}
    assert list(record)[-3:] == ["statistics", "top1", "findings"]


def test_a_share_of_nothing_is_null_and_named_beside() -> None:
    record = strict(evaluation_record(evaluation(top1=share_of(0, 0))))
    assert record["top1"] == {"count": 0, "share": None, "standard_error": None}
    assert record["nonfinite"] == {"top1.share": "nan", "top1.standard_error": "nan"}


def test_the_histogram_is_not_in_the_record() -> None:
    counted = evaluation(statistics=STATISTICS._replace(histogram=Octaves(below=2)))
    assert evaluation_record(counted) == evaluation_record(evaluation())


def test_the_split_by_target_has_a_count_and_a_mean_for_each_group() -> None:
    split = TargetSplit(one=group(0.5, 1.0), zero=group(0.25))
    assert strict(evaluation_record(evaluation(by_target=split)))["by_target"] == {
        "one": {"count": 2, "mean": 0.75},
        "zero": {"count": 1, "mean": 0.25},
        "between": {"count": 0, "mean": None},
    }


def test_an_infinite_mean_of_a_group_is_named_by_its_path() -> None:
    split = TargetSplit(one=group(math.inf))
    record = strict(evaluation_record(evaluation(by_target=split)))
    assert record["by_target"]["one"] == {"count": 1, "mean": None}
    assert record["nonfinite"] == {"by_target.one.mean": "inf"}


def test_targets_outside_the_unit_interval_are_a_group_only_where_there_are_any() -> None:
    assert [name for name, _ in split_groups(TargetSplit())] == ["one", "zero", "between"]
    assert [name for name, _ in split_groups(TargetSplit(outside=group(1.0)))][-1] == "outside"


def test_findings_are_listed_with_all_they_say() -> None:
    finding = Finding(
        id="infinite-terms",
        severity="warning",
        message="1 term infinite",
        count=1,
        place=(0, 3),
        value=math.inf,
    )
    record = strict(evaluation_record(evaluation(findings=(finding,))))
    (told,) = record["findings"]
    assert told.keys() == {"id", "severity", "message", "count", "place", "value", "option"}
    assert (told["id"], told["count"], told["place"], told["option"]) == ("infinite-terms", 1, [0, 3], None)
    assert told["value"] is None
    assert record["nonfinite"] == {"findings.0.value": "inf"}


def test_without_log_softmax_the_setting_is_null() -> None:
    record = evaluation_record(evaluation(settings=Spec(zero_policy="torch", broadcast=True)))
    assert record["settings"] == {
        "log_softmax": None,
        "temperature": None,
        "zero_policy": "torch",
        "broadcast": True,
        "ignore_value": None,
        "trim_axis": False,
    }


def test_a_map_is_told_with_the_places_of_its_values() -> None:
    view = MapView(
        shape=(9, 4),
        selection=(slice(0, 9), 2),
        indices=((0, 1, 8), (2,)),
        values=np.array([[0.1], [0.25], [-0.0]]),
    )
    assert strict(evaluation_record(evaluation(), "none", view))["map"] == {
        "shape": [9, 4],
        "cut": True,
        "indices": [[0, 1, 8], [2]],
        "values": [[0.1], [0.25], [-0.0]],
    }


def test_nan_and_infinities_of_a_map_are_null_and_named_by_their_place() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 1e-300]])
    view = MapView(
        shape=(2, 2), selection=(slice(0, 2), slice(0, 2)), indices=((0, 1), (0, 1)), values=values
    )
    record = strict(evaluation_record(evaluation(), "none", view))
    assert record["map"]["values"] == [[None, None], [None, 1e-300]]
    assert record["nonfinite"] == {
        "map.values.0.0": "nan",
        "map.values.0.1": "inf",
        "map.values.1.0": "-inf",
    }


def test_a_map_without_dimensions_is_one_number() -> None:
    view = MapView(shape=(), selection=(), indices=(), values=np.array(0.5))
    assert strict(evaluation_record(evaluation(), "none", view))["map"] == {
        "shape": [],
        "cut": False,
        "indices": [],
        "values": 0.5,
    }


@pytest.mark.parametrize("total", [1.5, math.inf, -math.inf, math.nan])
def test_numbers_are_read_out_of_a_record_as_they_were_before_it_was_json(total: float) -> None:
    result = evaluation(total, statistics=STATISTICS._replace(percentiles={"p99.9": total}))
    record = strict(evaluation_record(result))
    for found in (number_in(record, "distmean"), number_in(record, "statistics", "p99.9")):
        assert found is not None
        assert math.isnan(found) if math.isnan(total) else found in (total, total / 2)
    assert number_in(record, "shape") is None
    assert number_in(record, "statistics", "of") is None
    assert number_in(record, "statistics", "exact") is None
    assert number_in(record, "missing", "too") is None
