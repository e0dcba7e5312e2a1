"""Every number of a result under its one name, as limits and baselines know it.

`mean` is PyTorch's, the sum over the number of elements; the mean of what `statistics` are of
is `distmean` for KL and `mean` for BCE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.limits import percentile_of
from kldiv_cli.spec import Loss, Spec
from kldiv_cli.statistics import percentile_name

__all__ = ["known_names", "named", "once_named", "plain_name", "quantities", "quantities_of", "rank_of"]

_COUNTS: Final = ("elements", "distributions", "batch")
_GROUPS: Final = ("one", "zero", "between", "outside")
_ORDER: Final = (
    *_COUNTS,
    *("sum", "mean", "batchmean", "distmean"),
    *("standard_error", "blocks.standard_error", "minimum", "percentile", "maximum"),
    *("top1", "top1.standard_error"),
    *(f"by_target.{group}.{what}" for group in _GROUPS for what in ("count", "mean")),
)


def quantities(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """All numbers of a result, by the names of `named`."""
    return named({evaluation.loss: quantities_of(evaluation) for evaluation in evaluations})


def named(by_loss: Mapping[Loss, Mapping[str, float]]) -> dict[str, float]:
    """The numbers of one loss by name, and by ``kl.NAME``; of two losses the counts and ``LOSS.NAME``."""
    every: dict[str, float] = {}
    for loss, of_loss in by_loss.items():
        plain = {k: v for k, v in of_loss.items() if len(by_loss) == 1 or k in _COUNTS}
        every |= plain | {f"{loss}.{name}": value for name, value in of_loss.items()}
    return every


def once_named(by_loss: Mapping[Loss, Mapping[str, float]]) -> dict[str, float]:
    """The numbers of one loss by name, of two by ``LOSS.NAME``: each of them once."""
    prefixes = {loss: f"{loss}." if len(by_loss) > 1 else "" for loss in by_loss}
    return {f"{prefixes[loss]}{name}": of_loss[name] for loss, of_loss in by_loss.items() for name in of_loss}


def quantities_of(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of one loss, from counts over reductions to statistics."""
    return dict(_quantities(evaluation))


def known_names(spec: Spec) -> tuple[str, ...]:
    """The names that `quantities` of such a computation will have."""
    return tuple(named({loss: dict.fromkeys(_names(spec, loss), math.nan) for loss in spec.losses}))


def plain_name(name: str) -> str:
    """A name without the loss before it."""
    return name.removeprefix("kl.").removeprefix("bce.")


def rank_of(name: str) -> tuple[int, float, str]:
    """What names of one loss are sorted by to stand as `quantities_of` has them; unknown ones behind."""
    quantile = percentile_of(name)
    place = name if quantile is None else "percentile"
    return _ORDER.index(place) if place in _ORDER else len(_ORDER), quantile or 0.0, name


def _quantities(evaluation: Evaluation) -> Iterator[tuple[str, float]]:
    statistics, spec = evaluation.statistics, evaluation.settings
    for name in _COUNTS:
        yield name, getattr(evaluation.scalars, name)
    for name in _reductions(evaluation.loss):
        yield name, getattr(evaluation, name)
    yield "standard_error", statistics.standard_error
    if statistics.blocks is not None:
        yield "blocks.standard_error", statistics.blocks.standard_error
    yield "minimum", statistics.minimum
    yield from statistics.percentiles.items()
    yield "maximum", statistics.maximum
    if evaluation.top1 is not None:
        yield "top1", evaluation.top1.share
        yield "top1.standard_error", evaluation.top1.standard_error
    if spec.by_target and evaluation.by_target is not None:
        for group in _GROUPS:
            of_group = getattr(evaluation.by_target, group)
            yield f"by_target.{group}.count", of_group.count
            yield f"by_target.{group}.mean", math.nan if of_group.mean is None else of_group.mean


def _names(spec: Spec, loss: Loss) -> Iterator[str]:
    yield from (*_COUNTS, *_reductions(loss), "standard_error")
    if spec.blocks_of is not None:
        yield "blocks.standard_error"
    yield from ("minimum", *map(percentile_name, spec.quantiles), "maximum")
    if spec.top1 and loss == "kl":
        yield from ("top1", "top1.standard_error")
    if spec.by_target:
        yield from (f"by_target.{group}.{what}" for group in _GROUPS for what in ("count", "mean"))


def _reductions(loss: Loss) -> tuple[str, ...]:
    return ("sum", "mean", "batchmean", "distmean") if loss == "kl" else ("sum", "mean", "distmean")
