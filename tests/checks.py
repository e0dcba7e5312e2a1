"""Pairs that are really checked: what tests of the gate's reports share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from kldiv_cli.baseline import Baseline
from kldiv_cli.cases import case_of
from kldiv_cli.gate import Checked, check_case, measure

Array = npt.NDArray[np.float64]

TARGETS: Final[Array] = np.array([[0.25, 0.75], [0.5, 0.5], [0.125, 0.875]])
PREDICTIONS: Final[Array] = np.log([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25]])
CLOSE: Final[Array] = np.log([[0.24, 0.76], [0.5, 0.5], [0.13, 0.87]])


def checked(
    name: str,
    predictions: Array = PREDICTIONS,
    *,
    limits: Sequence[str] = ("distmean < 0.1", "p99 < 100"),
    before: Array | None = None,
    **options: Any,
) -> Checked:
    """The result for these predictions, beside a baseline of those `before`."""
    stored = None
    if before is not None:
        recorded = measure(case_of(name, before, TARGETS, options)).recorded()
        stored = Baseline(path="baseline.json", pairs={name: recorded})
    return check_case(case_of(name, predictions, TARGETS, options, limits=limits, baseline=stored))


def passing(name: str = "good", **options: Any) -> Checked:
    return checked(name, CLOSE, **options)


def failing(name: str = "bad", **options: Any) -> Checked:
    return checked(name, **options)


def broken(name: str = "ugly", error: str = "q.npy: no such file") -> Checked:
    return Checked(name=name, error=error)


def nonfinite(name: str = "nan") -> Checked:
    """A pair that fails for what is in it; none of its limits is kept either."""
    predictions = PREDICTIONS.copy()
    predictions[0, 0], predictions[1, 1] = np.nan, -np.inf
    return checked(name, predictions)


HOSTILE: Final = (
    *("::error::", "##[error]", "##vso[", "%", "%25", "%3A", "%0A", "\n", "\r", "::", ":", ",", "]", ";"),
    *("=", "|", "`", "*", "_", "<b>", "&lt;", "&", "~~", "$", "\\", "[x](y)", "![", "é", "名", "🎈", " "),
    *("\x00", "\x1b[31m", "\x85", "\u2028", "\ufeff", "\ufffe", "\uffff", "\ud800", "\udcff", "]]>", '"'),
)


def hostile_text(min_size: int = 0) -> st.SearchStrategy[str]:
    """Text made to be mistaken: markup, escapes, commands, and what files can be called besides."""
    return st.lists(st.sampled_from(HOSTILE) | st.characters(), min_size=min_size, max_size=12).map("".join)
