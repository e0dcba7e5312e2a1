"""What tables say before it is known how they look."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kldiv_cli.evaluation import Evaluation, Input
from kldiv_cli.map_view import MapView
from kldiv_cli.reductions import divisors_of, exact_sum, reduce_sum
from kldiv_cli.report import layout
from kldiv_cli.report.layout import heading, inputs, map_grid, number, scalar_grid, split_grid
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


def evaluation(loss: str = "kl", shape: tuple[int, ...] = (2, 4), **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "loss": loss,
        "predictions": Input(address="q.npy", shape=shape, dtype="float32", space="log-probs"),
        "targets": Input(address="p.npy", shape=shape, dtype="float64", space="probs"),
        "shape": shape,
        "axis": len(shape) - 1,
        "settings": Spec(),
        "scalars": reduce_sum(1.5, divisors_of(shape, len(shape) - 1), batchmean=loss == "kl"),
        "statistics": STATISTICS,
    }
    return Evaluation(**{**fields, **changes})


def view_of(shape: tuple[int, ...], *indices: tuple[int, ...]) -> MapView:
    """A view whose every value spells its index: 123 at (1, 2, 3)."""
    values = np.zeros([len(of_dimension) for of_dimension in indices])
    for position in np.ndindex(values.shape):
        digits = [of_dimension[k] for of_dimension, k in zip(indices, position, strict=True)]
        values[position] = sum(digit * 10.0**power for power, digit in enumerate(reversed(digits)))
    return MapView(
        shape=shape,
        selection=tuple(slice(i[0], i[-1] + 1) if i else slice(0, 0) for i in indices),
        indices=indices,
        values=values,
    )


# Numbers and words


@pytest.mark.parametrize(
    "value", [0.1, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 123456789.123456789, 2.0**-1022]
)
def test_a_number_without_a_precision_reads_back_to_the_same_value(value: float) -> None:
    assert float(number(value, None)).hex() == value.hex()


@pytest.mark.parametrize(
    ("value", "precision", "text"),
    [
        (0.123456789, 3, "0.123"),
        (1234567.0, 3, "1.23e+06"),
        (0.0, 4, "0"),
        (math.nan, 3, "nan"),
        (math.inf, None, "inf"),
        (-math.inf, 6, "-inf"),
        (None, None, "–"),
        (None, 3, "–"),
        (0.1, 17, "0.10000000000000001"),
    ],
)
def test_a_precision_is_a_number_of_significant_digits(
    value: float | None, precision: int | None, text: str
) -> None:
    assert number(value, precision) == text


def test_the_heading_tells_the_loss_its_direction_and_its_unit() -> None:
    assert heading([evaluation()]) == "KL(p.npy ‖ q.npy), in nats"
    assert heading([evaluation("bce")]) == "BCE(q.npy, p.npy), in nats"
    both = heading([evaluation(), evaluation("bce")])
    assert both == "KL(p.npy ‖ q.npy) and BCE(q.npy, p.npy), in nats"


def test_inputs_are_described_with_what_they_were_taken_for() -> None:
    assert inputs([evaluation()]) == (
        ("predictions", "q.npy", "(2, 4)", "float32", "log-probs"),
        ("targets", "p.npy", "(2, 4)", "float64", "probs over axis 1 (4)"),
    )


def test_a_softmax_and_a_temperature_are_told_of_the_input_they_act_on() -> None:
    shape = (2, 3, 4)
    logits = Input(address="z.npy", shape=shape, dtype="float16", space="logits")
    spec = Spec(predictions_are="logits", targets_are="logits", log_softmax=True, temperature=2.5, axis=1)
    told = inputs([evaluation(shape=shape, axis=1, predictions=logits, targets=logits, settings=spec)])
    assert told[0] == (
        "predictions",
        "z.npy",
        "(2, 3, 4)",
        "float16",
        "logits / 2.5, log-softmax over axis 1 (3)",
    )
    assert told[1][-1] == "logits / 2.5, log-softmax over axis 1 (3)"


def test_a_temperature_is_not_told_of_an_input_it_does_not_divide() -> None:
    spec = Spec(predictions_are="logits", log_softmax=True, temperature=2.0)
    logits = Input(address="z.npy", shape=(2, 4), dtype="float32", space="logits")
    predictions, targets = inputs([evaluation(predictions=logits, settings=spec)])
    assert predictions[-1] == "logits / 2, log-softmax over axis 1 (4)"
    assert targets[-1] == "probs over axis 1 (4)"


def test_control_characters_of_a_name_are_escaped() -> None:
    odd = Input(address="a\nb\x1b[31m\x9b.npy", shape=(2, 4), dtype="float32", space="log-probs")
    shown = evaluation(predictions=odd)
    assert inputs([shown])[0][1] == r"a\nb\x1b[31m\x9b.npy"
    assert heading([shown]) == r"KL(p.npy ‖ a\nb\x1b[31m\x9b.npy), in nats"


# Scalars


def test_scalars_stand_side_by_side_with_their_divisors() -> None:
    grid = scalar_grid([evaluation(shape=(2, 3, 4))], None, None)
    assert grid.columns == ("reduction", "kl", "divisor", "of")
    assert grid.rows == (
        ("sum", "1.5", "1", ""),
        ("mean", "0.0625", "24", "elements"),
        ("batchmean", "0.75", "2", "batch"),
        ("distmean", "0.25", "6", "distributions"),
    )


def test_bce_alone_has_no_row_of_batchmean() -> None:
    rows = scalar_grid([evaluation("bce")], None, None).rows
    assert [row[0] for row in rows] == ["sum", "mean", "distmean"]


def test_two_losses_have_a_column_each_and_a_dash_where_one_has_no_value() -> None:
    grid = scalar_grid([evaluation(), evaluation("bce")], None, None)
    assert grid.columns == ("reduction", "kl", "bce", "divisor", "of")
    assert ("batchmean", "0.75", "–", "2", "batch") in grid.rows


def test_a_chosen_reduction_is_the_only_row() -> None:
    assert scalar_grid([evaluation()], "distmean", 3).rows == (("distmean", "0.75", "2", "distributions"),)


def test_groups_by_target_have_counts_and_a_mean_for_each_loss() -> None:
    split = TargetSplit(
        one=Group(2, exact_sum(np.array([0.5, 1.0]))), zero=Group(1, exact_sum(np.array([0.25])))
    )
    grid = split_grid([evaluation(by_target=split), evaluation("bce", by_target=split)], None)
    assert grid is not None
    assert grid.columns == ("target", "count", "kl mean", "bce mean")
    assert grid.rows == (
        ("1", "2", "0.75", "0.75"),
        ("0", "1", "0.25", "0.25"),
        ("between", "0", "–", "–"),
    )
    assert split_grid([evaluation()], None) is None


def test_targets_outside_the_unit_interval_have_a_row_where_there_are_any() -> None:
    split = TargetSplit(outside=Group(1, exact_sum(np.array([2.0]))))
    grid = split_grid([evaluation(by_target=split)], None)
    assert grid is not None
    assert grid.rows[-1] == ("outside [0, 1]", "1", "2.0")


# Maps


def test_the_last_dimension_of_a_matrix_runs_across() -> None:
    grid = map_grid(view_of((2, 3), (0, 1), (0, 1, 2)))
    assert grid.index_columns == ("dim 0",)
    assert grid.value_columns == ("0", "1", "2")
    assert grid.rows == ((("0",), (0.0, 1.0, 2.0)), (("1",), (10.0, 11.0, 12.0)))


def test_a_vector_runs_down() -> None:
    grid = map_grid(view_of((3,), (0, 1, 2)))
    assert (grid.index_columns, grid.value_columns) == (("dim 0",), ("value",))
    assert grid.rows == ((("0",), (0.0,)), (("1",), (1.0,)), (("2",), (2.0,)))


def test_a_lone_number_has_a_value_and_no_index() -> None:
    view = MapView(shape=(), selection=(), indices=(), values=np.array(0.5))
    grid = map_grid(view)
    assert (grid.index_columns, grid.value_columns, grid.rows) == ((), ("value",), (((), (0.5,)),))


def test_all_dimensions_but_the_last_run_down() -> None:
    grid = map_grid(view_of((2, 2, 2), (0, 1), (0, 1), (0, 1)))
    assert grid.index_columns == ("dim 0", "dim 1")
    assert grid.rows == (
        (("0", "0"), (0.0, 1.0)),
        (("0", "1"), (10.0, 11.0)),
        (("1", "0"), (100.0, 101.0)),
        (("1", "1"), (110.0, 111.0)),
    )


def test_a_dimension_fixed_to_one_index_runs_down_even_if_it_is_the_last() -> None:
    grid = map_grid(view_of((4, 5, 6), (1, 2), (3, 4), (5,)))
    assert grid.index_columns == ("dim 0", "dim 2")
    assert grid.value_columns == ("3", "4")
    assert grid.rows == ((("1", "5"), (135.0, 145.0)), (("2", "5"), (235.0, 245.0)))


def test_what_was_left_out_shows_as_a_gap_in_rows_and_columns() -> None:
    grid = map_grid(view_of((9, 9), (0, 1, 8), (0, 1, 8)))
    assert grid.value_columns == ("0", "1", "…", "8")
    assert grid.rows == (
        (("0",), (0.0, 1.0, None, 8.0)),
        (("1",), (10.0, 11.0, None, 18.0)),
        (("…",), (None, None, None, None)),
        (("8",), (80.0, 81.0, None, 88.0)),
    )


def test_a_gap_in_an_inner_dimension_shows_in_every_group_of_rows() -> None:
    grid = map_grid(view_of((2, 9, 2), (0, 1), (0, 8), (0, 1)))
    assert [index for index, _ in grid.rows] == [
        ("0", "0"),
        ("…", "…"),
        ("0", "8"),
        ("1", "0"),
        ("…", "…"),
        ("1", "8"),
    ]


def test_a_gap_in_a_vector_is_a_row() -> None:
    grid = map_grid(view_of((9,), (0, 8)))
    assert grid.rows == ((("0",), (0.0,)), (("…",), (None,)), (("8",), (8.0,)))


def test_an_empty_map_has_a_header_and_no_rows() -> None:
    grid = map_grid(view_of((0, 3), (), (0, 1, 2)))
    assert (grid.value_columns, grid.rows) == (("0", "1", "2"), ())


def test_columns_that_do_not_fit_give_way_in_the_middle() -> None:
    grid = map_grid(view_of((2, 9), (0, 1), tuple(range(9))), 5)
    assert grid.value_columns == ("0", "1", "…", "7", "8")
    assert grid.rows[1] == (("1",), (10.0, 11.0, None, 17.0, 18.0))


@pytest.mark.parametrize("most", range(3, 13))
@pytest.mark.parametrize("columns", [tuple(range(9)), (0, 1, 2, 7, 8, 9)])
def test_there_are_never_more_columns_than_fit(columns: tuple[int, ...], most: int) -> None:
    grid = map_grid(view_of((2, 10), (0, 1), columns), most)
    assert len(grid.value_columns) <= most
    assert grid.value_columns[0] == str(columns[0])
    assert grid.value_columns[-1] == str(columns[-1])
    assert all(len(values) == len(grid.value_columns) for _, values in grid.rows)


def test_the_largest_magnitude_passes_over_nan_and_infinities() -> None:
    view = view_of((1, 4), (0,), (0, 1, 2, 3))
    view.values[...] = [[np.nan, -np.inf, -3.0, 2.0]]
    assert layout.largest(view) == 3.0
    view.values[...] = np.nan
    assert layout.largest(view) == 0.0
