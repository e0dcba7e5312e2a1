"""What blocks add to a result, merged in any order."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest

from kldiv_cli.observations import Observations, Tally
from kldiv_cli.partials import LossPartial, merged
from kldiv_cli.reductions import exact_sum
from kldiv_cli.statistics import Groups, Sketch, Worst, groups_of, sketch_of, worst_of
from kldiv_cli.target_split import TargetSplit, split_by_target

VALUES = np.random.default_rng(20261124).standard_normal(30)
TARGETS = np.tile([0.0, 1.0, 0.5], 10)


def partial(places: slice) -> LossPartial:
    values, where = VALUES[places], np.arange(30)[places]
    return LossPartial(
        total=exact_sum(values),
        observations=Observations(infinite_terms=Tally(1, places.start, 1.0)),
        elements=values.size * 2,
        distributions=values.size,
        same_tops=int(np.count_nonzero(values > 0)),
        split=split_by_target(TARGETS[places], values),
        sketch=sketch_of(values),
        worst=worst_of(values, lambda which: where[which], 4),
        groups=groups_of(values, where, 7),
    )


def test_partials_with_all_there_is_merge_in_any_order_to_that_of_the_whole() -> None:
    whole = partial(slice(0, 30))._replace(observations=Observations(infinite_terms=Tally(3, 0, 1.0)))
    parts = [partial(slice(0, 3)), partial(slice(3, 20)), partial(slice(20, 30))]
    for a, b, c in itertools.permutations(parts):
        assert a.merge(b).merge(c) == whole
        assert a.merge(b.merge(c)) == whole


def test_an_empty_partial_takes_over_what_the_other_has() -> None:
    some = partial(slice(4, 9))
    assert LossPartial().merge(some) == some == some.merge(LossPartial())


def test_what_was_not_asked_for_stays_none() -> None:
    plain = LossPartial(total=exact_sum(VALUES), elements=3, distributions=1)
    both = plain.merge(plain)
    assert (both.elements, both.distributions) == (6, 2)
    assert (both.split, both.sketch, both.worst, both.groups) == (None, None, None, None)


@pytest.mark.parametrize("part", [TargetSplit(), Sketch(), Worst(3), Groups(2)])
def test_something_merged_with_nothing_is_itself(part: TargetSplit | Sketch | Worst | Groups) -> None:
    assert merged(part, None) is part  # type: ignore[type-var]
    assert merged(None, part) is part  # type: ignore[type-var]
    assert merged(part, part) == part  # type: ignore[type-var]
    nothing: Sketch | None = None
    assert merged(nothing, nothing) is None


def test_a_partial_with_all_there_is_can_be_pickled() -> None:
    some = partial(slice(0, 30))
    assert pickle.loads(pickle.dumps(some)) == some
