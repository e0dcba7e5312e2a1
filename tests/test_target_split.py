from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kldiv_cli.target_split import Group, TargetSplit, split_by_target

repeatable = settings(derandomize=True, deadline=None, max_examples=80)

Array = npt.NDArray[np.float64]

NAMES = ("one", "zero", "between", "outside")
SHAPES = hnp.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=12)
TARGETS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 5e-324, 1 - 2**-53, 1 + 2**-52, -1.0, math.nan, math.inf]),
    st.floats(),
)


@st.composite
def targets_and_losses(draw: st.DrawFn) -> tuple[Array, Array]:
    shape = draw(SHAPES)
    targets = draw(hnp.arrays(np.float64, shape, elements=TARGETS))
    losses = draw(hnp.arrays(np.float64, shape, elements=st.floats(-1e9, 1e9)))
    return targets, losses


def masks(targets: Array) -> dict[str, npt.NDArray[np.bool_]]:
    one, zero = targets == 1, targets == 0
    between = (targets > 0) & (targets < 1)
    return {"one": one, "zero": zero, "between": between, "outside": ~one & ~zero & ~between}


@repeatable
@given(targets_and_losses())
def test_each_group_is_the_exact_sum_over_its_elements(case: tuple[Array, Array]) -> None:
    targets, losses = case
    split = split_by_target(targets, losses)
    for name, mask in masks(targets).items():
        group: Group = getattr(split, name)
        assert group.count == np.count_nonzero(mask)
        assert group.total.value == math.fsum(losses[mask].tolist())


@repeatable
@given(targets_and_losses())
def test_every_element_is_in_one_group(case: tuple[Array, Array]) -> None:
    targets, losses = case
    split = split_by_target(targets, losses)
    assert sum(getattr(split, name).count for name in NAMES) == targets.size


@repeatable
@given(targets_and_losses(), st.integers(0, 12), st.booleans())
def test_merging_the_parts_equals_the_whole(case: tuple[Array, Array], cut: int, swap: bool) -> None:
    targets, losses = case
    parts = [
        split_by_target(t, x)
        for t, x in zip(
            np.split(targets, [min(cut, len(targets))]),
            np.split(losses, [min(cut, len(losses))]),
            strict=True,
        )
    ]
    first, second = reversed(parts) if swap else parts
    assert first.merge(second) == split_by_target(targets, losses)


@repeatable
@given(targets_and_losses())
def test_an_empty_split_merges_without_effect(case: tuple[Array, Array]) -> None:
    split = split_by_target(*case)
    assert TargetSplit().merge(split) == split == split.merge(TargetSplit())


def test_the_mean_of_a_group_is_its_sum_by_its_count() -> None:
    split = split_by_target(np.array([1.0, 1.0, 0.0]), np.array([1.0, 2.0, 5.0]))
    assert split.one.mean == 1.5
    assert split.zero.mean == 5.0


def test_an_empty_group_has_no_mean() -> None:
    assert Group().mean is None


def test_nan_targets_are_outside_and_negative_zero_is_zero() -> None:
    split = split_by_target(np.array([math.nan, -0.0]), np.array([1.0, 2.0]))
    assert (split.outside.count, split.zero.count) == (1, 1)


def test_infinite_and_nan_losses_make_the_sum_of_their_group_only() -> None:
    split = split_by_target(np.array([1.0, 1.0, 0.0]), np.array([math.inf, 1.0, 5.0]))
    assert split.one.total.value == math.inf
    assert split.zero.total.value == 5.0
