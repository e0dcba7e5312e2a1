"""The terms of one piece: what does not count is 0, and nothing is said of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.buffers import Workspace
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.piece_losses import PieceLosses
from kldiv_cli.pieces import Norms, Piece, PieceReader, Rows
from kldiv_cli.places import Places
from kldiv_cli.selection import Selection
from kldiv_cli.spec import Spec, resolve_spec

Array = npt.NDArray[np.float64]

COUNTED = np.array([[True, True, False], [False, True, True]])
PLACES = Places((2, 3), 1, (slice(0, 2), slice(0, 3)))


def piece_of(
    spec: Spec, predictions: npt.ArrayLike, targets: npt.ArrayLike, counted: bool = False, **factors: Array
) -> Piece:
    rows = Rows(
        0,
        np.asarray(predictions, float),
        np.asarray(targets, float),
        factors.get("weight"),
        factors.get("pos_weight"),
        3,
        Selection(None, COUNTED if counted else None),
    )
    with np.errstate(all="ignore"):
        (piece,) = PieceReader(spec, Workspace()).pieces(rows, Norms())
    return piece


def terms_of(
    loss: Any, spec: Spec, predictions: npt.ArrayLike, targets: npt.ArrayLike, **others: Any
) -> tuple[Array, Observations]:
    piece = piece_of(spec, predictions, targets, **others)
    losses = PieceLosses(spec, Workspace())
    with np.errstate(all="ignore"):
        values, observed = losses.terms(loss, piece, PLACES)
        if not np.isfinite(values).all():
            observed = observed.merge(losses.settle(loss, piece, values, PLACES))
    return values, observed


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("kl", {}),
    ("kl", {"targets_are": "log-probs"}),
    ("kl", {"predictions_are": "probs"}),
    ("bce", {}),
    ("bce", {"predictions_are": "log-probs"}),
    ("bce", {"predictions_are": "logits"}),
    ("bce", {"predictions_are": "logits", "targets_are": "logits"}),
]


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, -100.0, 999.0])
@pytest.mark.parametrize(("loss", "options"), KINDS)
def test_elements_that_do_not_count_are_0_and_unobserved_whatever_they_hold(
    loss: str, options: dict[str, Any], garbage: float
) -> None:
    spec = resolve_spec(losses=(loss,), mask=True, **options)
    rng = np.random.default_rng(5)
    x, y = rng.uniform(0.1, 0.9, (2, 3)), rng.uniform(0.1, 0.9, (2, 3))
    x = np.log(x) if spec.predictions_are == "log-probs" else x
    y = np.log(y) if spec.targets_are == "log-probs" else y
    expected, _ = terms_of(loss, spec, x, y)
    values, observed = terms_of(
        loss, spec, np.where(COUNTED, x, garbage), np.where(COUNTED, y, garbage), counted=True
    )
    np.testing.assert_array_equal(values, np.where(COUNTED, expected, 0.0))
    assert observed == Observations()


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -999.0])
def test_weights_where_nothing_counts_do_not_matter(garbage: float) -> None:
    spec = resolve_spec(losses=("bce",), predictions_are="logits", mask=True, weight=True, pos_weight=True)
    z, y = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, -2.0]]), np.full((2, 3), 0.25)
    factors = {"weight": np.full((2, 3), 2.0), "pos_weight": np.full((2, 3), 3.0)}
    expected, _ = terms_of("bce", spec, z, y, **factors)
    odd = {name: np.where(COUNTED, factor, garbage) for name, factor in factors.items()}
    values, observed = terms_of("bce", spec, z, y, counted=True, **odd)
    np.testing.assert_array_equal(values, np.where(COUNTED, expected, 0.0))
    assert observed == Observations(logits_outside=Tally(1))


def test_terms_that_count_are_observed_beside_those_that_do_not() -> None:
    spec = resolve_spec(mask=True)
    x = np.array([[-math.inf, -1.0, -math.inf], [math.nan, -math.inf, -1.0]])
    y = np.array([[0.5, 0.5, 0.5], [0.5, 0.0, 0.5]])
    values, observed = terms_of("kl", spec, x, y, counted=True)
    assert observed == Observations(zero_terms=Tally(1, 4, 0.0), infinite_terms=Tally(1, 0, math.inf))
    assert values[0, 0] == math.inf
    assert values[~COUNTED].tolist() == [0.0, 0.0]


def test_a_bce_term_that_counts_is_clamped_and_told() -> None:
    spec = resolve_spec(losses=("bce",), mask=True)
    p, y = np.array([[0.5, 0.0, 0.0], [0.0, 0.5, 0.5]]), np.ones((2, 3))
    values, observed = terms_of("bce", spec, p, y, counted=True)
    assert observed == Observations(clamped_terms=Tally(1, 1, 100.0), saturated_predictions=Tally(1, 1, 0.0))
    assert values[0].tolist() == [math.log(2), 100.0, 0.0]


def test_a_mask_of_ones_leaves_a_piece_as_it_is() -> None:
    piece = piece_of(resolve_spec(), np.zeros((2, 3)), np.ones((2, 3)))
    piece.select(np.ones((2, 3), bool))
    assert piece.counted is None


def test_the_terms_of_two_losses_of_one_piece_do_not_disturb_each_other() -> None:
    spec = resolve_spec(losses=("kl", "bce"), predictions_are="probs")
    p, y = np.full((2, 3), 0.25), np.full((2, 3), 0.5)
    piece, losses = piece_of(spec, p, y), PieceLosses(spec, Workspace())
    alone = losses.terms("kl", piece, PLACES)[0].copy()
    losses.terms("bce", piece, PLACES)
    np.testing.assert_array_equal(losses.terms("kl", piece, PLACES)[0], alone)
