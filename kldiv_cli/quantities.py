"""Every number of a result under its one name, as limits and baselines know it.

`mean` is PyTorch's, the sum over the number of elements; the mean of what `statistics` are of
is `distmean` for KL and `mean` for BCE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from kldiv_cli.evaluation import Evaluation
from kldiv_cli.spec import Loss, Spec
from kldiv_cli.statistics import percentile_name

__all__ = ["known_names", "plain_name", "quantities", "quantities_of"]

_COUNTS: Final = ("elements", "distributions", "batch")
_GROUPS: Final = ("one", "zero", "between", "outside")


def quantities(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """The numbers of one loss by name, and by ``kl.NAME``; of two losses the counts and ``LOSS.NAME``."""
    named: dict[str, float] = {}
    for evaluation in evaluations:
        of_loss = quantities_of(evaluation)
        plain = of_loss if len(evaluations) == 1 else {name: of_loss[name] for name in _COUNTS}
        named |= plain | {f"{evaluation.loss}.{name}": value for name, value in of_loss.items()}
    return named


def quantities_of(evaluation: Evaluation) -> dict[str, float]:
    """The numbers of one loss, from counts over reductions to statistics."""
    return dict(_quantities(evaluation))


def known_names(spec: Spec) -> tuple[str, ...]:
    """The names that `quantities` of such a computation will have."""
    named: list[str] = []
    for loss in spec.losses:
        of_loss = tuple(_names(spec, loss))
        named += of_loss if len(spec.losses) == 1 else _COUNTS
        named += (f"{loss}.{name}" for name in of_loss)
    return tuple(dict.fromkeys(named))


def plain_name(name: str) -> str:
    """A name without the loss before it."""
    return name.removeprefix("kl.").removeprefix("bce.")


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
