"""What limits name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli.limit_parser import parse_limit
from kldiv_cli.limits import percentile_of
from kldiv_cli.statistics import percentile_name

repeatable = settings(derandomize=True, deadline=None, max_examples=150)


@pytest.mark.parametrize(
    ("text", "statistics", "stored"),
    [
        ("mean < 1", {"mean"}, set()),
        ("mean < baseline", {"mean"}, {"mean"}),
        ("mean < baseline.mean", {"mean"}, {"mean"}),
        ("mean < baseline.p99 + -(p50 * top1) / baseline", {"mean", "p50", "top1"}, {"p99", "mean"}),
        ("by_target.one.mean < kl.mean", {"by_target.one.mean", "kl.mean"}, set()),
        ("mean < baselines", {"mean", "baselines"}, set()),
        ("x1_.2_ == 0 * x1_.2", {"x1_.2_", "x1_.2"}, set()),
    ],
)
def test_a_limit_says_what_it_needs_of_the_run_and_of_the_baseline(
    text: str, statistics: set[str], stored: set[str]
) -> None:
    limit = parse_limit(text)
    assert limit.statistics == statistics
    assert limit.stored == stored


# The names of percentiles


@pytest.mark.parametrize(
    ("name", "quantile"),
    [
        ("p0", 0.0),
        ("p100", 1.0),
        ("p50", 0.5),
        ("p99.9", 0.999),
        ("p0.1", 0.001),
        ("p99.999", 0.99999),
        ("p100.1", None),
        ("p-1", None),
        ("p", None),
        ("p.5", None),
        ("p50.", None),
        ("p50.0", None),
        ("p050", None),
        ("p5e1", None),
        ("p1_0", None),
        ("p 50", None),
        ("p٥", None),
        ("pinf", None),
        ("pnan", None),
        ("p" + "9" * 400, None),
        ("p0.0000000000001", None),
        ("mean", None),
        ("50", None),
        ("bce.p50", None),
        ("", None),
    ],
)
def test_the_name_of_a_percentile_tells_its_quantile_and_no_other_name_does(
    name: str, quantile: float | None
) -> None:
    assert percentile_of(name) == quantile


@repeatable
@given(st.floats(0, 1))
def test_every_percentile_can_be_asked_for_by_its_name(quantile: float) -> None:
    name = percentile_name(quantile)
    told = percentile_of(name)
    assert told is not None
    assert percentile_name(told) == name
    assert told == pytest.approx(quantile, abs=1e-14)
