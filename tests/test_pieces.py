from __future__ import annotations

import numpy as np
import pytest

from kldiv_cli.buffers import Workspace
from kldiv_cli.kernels import SEGMENT
from kldiv_cli.pieces import PIECE, Norms, PieceReader, Rows
from kldiv_cli.segments import count_segments, segments_of
from kldiv_cli.spec import resolve_spec


@pytest.mark.parametrize(
    ("rows", "length"),
    [(1, 1), (7, 10), (3, SEGMENT), (2, SEGMENT + 1), (1, 2 * PIECE + SEGMENT + 5), (PIECE + 3, 1)],
)
def test_pieces_cover_every_element_once_and_end_on_segments(rows: int, length: int) -> None:
    values = np.arange(rows * length, dtype=np.float32).reshape(rows, length)
    seen = np.zeros((rows, length), np.uint8)
    reader = PieceReader(resolve_spec(), Workspace())
    for piece in reader.pieces(Rows(0, values, values, None, None, values.shape[1]), Norms()):
        assert piece.columns.start % SEGMENT == 0
        assert piece.columns.stop % SEGMENT == 0 or piece.columns.stop == length
        assert piece.y.size <= PIECE
        np.testing.assert_array_equal(piece.y, values[piece.rows, piece.columns])
        seen[piece.rows, piece.columns] += 1
    assert (seen == 1).all()


def test_segments_are_counted_from_the_columns() -> None:
    assert [count_segments(n) for n in (1, SEGMENT, SEGMENT + 1)] == [1, 1, 2]
    assert segments_of(slice(2 * SEGMENT, 3 * SEGMENT + 1)) == slice(2, 4)


def test_logits_become_log_probabilities_however_long_the_distribution() -> None:
    rng = np.random.default_rng(3)
    logits = rng.standard_normal((2, 2 * SEGMENT + 9))
    reader = PieceReader(resolve_spec(log_softmax=-1), Workspace())
    total = np.zeros(2)
    for piece in reader.pieces(Rows(0, logits, logits, None, None, logits.shape[1]), Norms()):
        assert piece.log_p is not None
        total[piece.rows] += np.exp(piece.log_p).sum(axis=-1)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
