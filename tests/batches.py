"""Batches whose pairs are really computed: what tests of a batch's reports share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.batch_summary import BatchSummary, LossSummary, WorstPair
from kldiv_cli.estimates import Estimate, mean_of, share_of
from kldiv_cli.pair_result import PairResult, result_of
from kldiv_cli.record import value_at
from kldiv_cli.reductions import Reduction
from kldiv_cli.spec import Spec, resolve_spec
from kldiv_cli.statistics import sketch_of
from kldiv_cli.totals import Totals

Array = npt.NDArray[np.float64]

SPEC: Final = resolve_spec(losses=("kl",))
TARGETS: Final[Array] = np.array([[0.25, 0.75], [0.5, 0.5], [0.125, 0.875]])


def computed(name: str, spec: Spec = SPEC, *, seed: int = 1, predictions: Array | None = None) -> PairResult:
    """A pair of three distributions over two classes."""
    if predictions is None:
        q = np.random.default_rng(seed).dirichlet(np.ones(2), 3)
        predictions = q if spec.predictions_are == "probs" else np.log(q)
    inputs = open_inputs(predictions, TARGETS)
    size = predictions.nbytes + TARGETS.nbytes
    evaluations = evaluate_to(spec, inputs, totals=True)
    return result_of(name, (f"{name}/q.npy", f"{name}/p.npy"), evaluations, bytes=size, seconds=0.25)


def impossible(name: str = "nan", spec: Spec = SPEC) -> PairResult:
    """One whose sum is inf."""
    predictions = np.log([[0.5, 0.5], [0.25, 0.75], [0.5, 0.5]])
    predictions[2, 1] = -np.inf
    return computed(name, spec, predictions=predictions)


def broken(name: str = "ugly", error: str = "ugly/q.npy: no such file") -> PairResult:
    return PairResult(name=name, predictions=f"{name}/q.npy", targets=f"{name}/p.npy", error=error)


def renamed(result: PairResult, name: str) -> PairResult:
    """The same numbers under another name: as many pairs as a test needs, of one that was computed."""
    return dataclasses.replace(result, name=name)


def summed(results: Sequence[PairResult], spec: Spec = SPEC, *, worst: int = 10) -> BatchSummary:
    """What these come to, from their own totals."""
    good = [result for result in results if result.error is None]
    failed = tuple((result.name, result.error) for result in results if result.error is not None)
    return BatchSummary(
        pairs=len(results),
        computed=len(good),
        failed=failed,
        bytes=sum(result.bytes for result in results),
        seconds=1.5,
        losses=tuple(_loss_summary(good, k, spec, worst) for k in range(len(spec.losses)) if good),
    )


def _loss_summary(results: Sequence[PairResult], position: int, spec: Spec, worst: int) -> LossSummary:
    loss = spec.losses[position]
    totals = reduce(Totals.merge, (result.totals[loss] for result in results))
    by: Reduction = "distmean" if loss == "kl" else "mean"
    records = [(result.name, result.records[position]) for result in results]
    names: tuple[Reduction, ...] = ("mean", "batchmean", "distmean") if loss == "kl" else ("mean", "distmean")
    ranked = sorted(((name, value_at(record, by)) for name, record in records), key=lambda pair: -pair[1])
    return LossSummary(
        loss=loss,
        scalars=totals.scalars(loss),
        statistics=totals.statistics(loss, spec.quantiles),
        top1=None if totals.same_tops is None else share_of(totals.same_tops, totals.distributions),
        by_target=totals.by_target,
        macro={name: _mean([value_at(record, name) for _, record in records]) for name in names},
        worst_by=by,
        worst=tuple(WorstPair(*pair) for pair in ranked[:worst]),
    )


def _mean(values: list[Any]) -> Estimate:
    return mean_of(sketch_of(np.array(values, np.float64)))
