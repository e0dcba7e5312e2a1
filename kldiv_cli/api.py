"""The one call for scripts: paths or arrays in, the record of the result out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kldiv_cli.atomic import commit_all
from kldiv_cli.budget import DEFAULT_RESOURCES, Resources
from kldiv_cli.errors import UsageError
from kldiv_cli.evaluation import Evaluation, evaluate_sources
from kldiv_cli.job import MapWriter
from kldiv_cli.placement import resources_of
from kldiv_cli.sources import ArraySource, Inputs, Source, open_source
from kldiv_cli.spec import Spec, resolve_spec

__all__ = [
    "ArrayOrPath",
    "compare",
    "compare_to",
    "evaluate",
    "evaluate_to",
    "open_comparison",
    "open_inputs",
]

if TYPE_CHECKING:
    from kldiv_cli.comparison import Comparison
    from kldiv_cli.comparison_spec import ComparisonSpec
    from kldiv_cli.sinks import MapSink

ArrayOrPath = npt.ArrayLike | str | os.PathLike[str]
OUTPUT_DTYPES = ("float16", "float32", "float64")


def evaluate(
    predictions: ArrayOrPath,
    targets: ArrayOrPath,
    /,
    *,
    loss: str = "kl",
    log_softmax: int | None = None,
    predictions_are: str | None = None,
    targets_are: str | None = None,
    log_target: bool = False,
    axis: int | None = None,
    weight: ArrayOrPath | None = None,
    pos_weight: ArrayOrPath | None = None,
    temperature: float | None = None,
    zero_policy: str = "limit",
    broadcast: bool = False,
    by_target: bool = False,
    mask: ArrayOrPath | None = None,
    ignore_value: float | None = None,
    trim_axis: bool = False,
    quantiles: Sequence[float] = (),
    worst: int = 0,
    blocks_of: int | None = None,
    top1: bool = False,
    distributions: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    output_dtype: str | None = None,
    force: bool = False,
    workers: int | None = None,
    memory: int | None = None,
    scheduler: str | None = None,
    allow_external: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Compute a loss on two stored arrays, or on arrays in memory, in one pass and bounded memory.

    Parameters
    ----------
    predictions, targets : array, or path or address of one
        ``"FILE"``, ``"FILE::DATASET"``, ``"FILE::DATASET[0:1000]"``; .npy, .npz, HDF5 or Zarr. A file may
        be a URL: ``s3://``, ``gs://``, ``https://``, ``http://``. KL is taken of the targets from the
        predictions, KL(targets || predictions), as in PyTorch.
    loss : {"kl", "bce"}
        KL divergence or binary cross-entropy, in nats.
    log_softmax : int, optional
        The predictions are logits: normalise them along this axis first.
    predictions_are : {"log-probs", "probs", "logits"}, optional
        By default log-probs for kl and probs for bce. Logits with bce is BCE with logits.
    targets_are : {"probs", "log-probs", "logits", "labels"}, optional
        By default probs. Labels are class indices along the axis.
    log_target : bool
        The same as ``targets_are="log-probs"``, PyTorch's name.
    axis : int, optional
        The distribution axis, by default the last.
    weight, pos_weight : like `predictions`, optional
        Factors for bce, broadcast to the shape of the predictions; `pos_weight` with logits only.
    temperature : float, optional
        Divides whichever inputs are logits.
    zero_policy : {"limit", "torch"}
        What ``0 * inf`` is: 0, its limit, or nan, as PyTorch has it. A prediction of 0 where the
        target is above 0 is ``inf`` under both.
    broadcast : bool
        Let predictions and targets of different shapes broadcast.
    by_target : bool
        Also split the loss by whether the target is 1, 0 or between.
    mask : like `predictions`, optional
        1 (or true) where something counts, else 0: of the shape of the predictions without the axis,
        or of one that broadcasts to theirs. A distribution counts if anything of it does.
    ignore_value : float, optional
        Targets, or labels, of this value do not count (PyTorch's ``ignore_index``, often -100).
    trim_axis : bool
        Cut the longer of predictions and targets along the axis, for padded vocabularies.
    quantiles : sequence of float
        More of them for the statistics, between 0 and 1.
    worst : int
        List as many of the largest losses, with their indices.
    blocks_of : int, optional
        As many consecutive losses depend on each other, tokens of one text for instance: a second
        standard error is taken from the means of such blocks.
    top1 : bool
        Count how often the top class, the first of the largest values along the axis that count, is
        that of the targets, or the label (kl). A distribution with nan, or with logits whose softmax
        is nan, has none.
    distributions : str or path, optional
        Write the loss of each distribution (kl) to this .npy or .h5 file, nan where it does not count.
    output, output_dtype, force
        Write the per-element map to this .npy or .h5 file, in that dtype (float64), over an old one;
        nan where an element does not count.
    workers, memory : int, optional
        Threads, and bytes for blocks and buffers; neither changes a bit of the result.
    scheduler : str, optional
        The address of a Dask scheduler, or the file that it wrote: blocks run on its workers, which
        must see the files at the same paths, and `memory` is that of each of their threads.
    allow_external : bool
        Let HDF5 follow links and storage into other files.
    progress : callable, optional
        Called with the number of elements done since the last call.

    Raises
    ------
    KldivError
        `UsageError`, `InputError` or `OutputError`; the text says what mends it.

    Examples
    --------
    >>> result = evaluate(np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]]))
    >>> round(result.batchmean, 6)
    0.693147
    """
    spec = resolve_spec(
        losses=(loss,),
        log_softmax=log_softmax,
        predictions_are=predictions_are,
        targets_are=targets_are,
        log_target=log_target,
        axis=axis,
        temperature=temperature,
        zero_policy=zero_policy,
        by_target=by_target,
        broadcast=broadcast,
        weight=weight is not None,
        pos_weight=pos_weight is not None,
        mask=mask is not None,
        ignore_value=ignore_value,
        trim_axis=trim_axis,
        quantiles=quantiles,
        worst=worst,
        blocks_of=blocks_of,
        top1=top1,
    )
    inputs = open_inputs(predictions, targets, weight, pos_weight, mask, allow_external=allow_external)
    with contextlib.closing(inputs), resources_of(workers, memory, scheduler) as resources:
        (evaluation,) = evaluate_to(
            spec,
            inputs,
            output=None if output is None else os.fspath(output),
            distributions=None if distributions is None else os.fspath(distributions),
            output_dtype=output_dtype,
            force=force,
            resources=resources,
            progress=progress,
        )
    return evaluation


def compare(
    reference: ArrayOrPath,
    candidate: ArrayOrPath,
    /,
    *,
    reference_are: str = "logits",
    candidate_are: str = "logits",
    axis: int = -1,
    labels: ArrayOrPath | None = None,
    temperature: float | None = None,
    mask: ArrayOrPath | None = None,
    ignore_value: float | None = None,
    trim_axis: bool = False,
    top_k: int = 5,
    quantiles: Sequence[float] = (),
    worst: int = 0,
    blocks_of: int | None = None,
    workers: int | None = None,
    memory: int | None = None,
    scheduler: str | None = None,
    allow_external: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compare two models' outputs on the same inputs, distribution by distribution, in one pass.

    Parameters
    ----------
    reference, candidate : array, or path or address of one
        Of one shape. The reference is the model before, the candidate the one after: quantized,
        distilled, exported.
    reference_are, candidate_are : {"logits", "log-probs", "probs"}
        Logits are normalised along the axis.
    axis : int
        The axis of classes.
    labels : like `reference`, optional
        Class indices, of the shape without the axis: adds cross-entropy, perplexity and accuracy.
    temperature : float, optional
        Divides logits.
    mask : like `reference`, optional
        1 (or true) for distributions that count, else 0: of the shape without the axis.
    ignore_value : float, optional
        Distributions beside labels of this value do not count.
    trim_axis : bool
        Cut the longer one along the axis, for padded vocabularies.
    top_k : int
        Also count how often the reference's top class is among as many of the candidate's.
    quantiles, worst, blocks_of, workers, memory, scheduler, allow_external, progress
        As in `evaluate`; the worst are those of the largest KL.

    Raises
    ------
    KldivError
        `UsageError` or `InputError`; the text says what mends it.

    Examples
    --------
    >>> result = compare(np.log([[0.7, 0.3]]), np.log([[0.6, 0.4]]))
    >>> round(result.kl.mean, 6), result.same_top.count
    (0.021601, 1)
    """
    from kldiv_cli.comparison_spec import resolve_comparison

    settings = resolve_comparison(
        reference_are=reference_are,
        candidate_are=candidate_are,
        axis=axis,
        temperature=temperature,
        labels=labels is not None,
        mask=mask is not None,
        ignore_value=ignore_value,
        trim_axis=trim_axis,
        top_k=top_k,
        quantiles=quantiles,
        worst=worst,
        blocks_of=blocks_of,
    )
    inputs = open_comparison(reference, candidate, labels, mask, allow_external=allow_external)
    with contextlib.closing(inputs), resources_of(workers, memory, scheduler) as resources:
        return compare_to(settings, inputs, resources=resources, progress=progress)


def open_comparison(
    reference: ArrayOrPath,
    candidate: ArrayOrPath,
    labels: ArrayOrPath | None = None,
    mask: ArrayOrPath | None = None,
    *,
    allow_external: bool = False,
) -> Inputs:
    """Open the inputs of a comparison: the candidate for predictions, the reference for targets."""
    return _open(
        {"predictions": candidate, "targets": reference, "labels": labels, "mask": mask},
        {"predictions": "candidate", "targets": "reference"},
        allow_external=allow_external,
    )


def compare_to(
    settings: ComparisonSpec,
    inputs: Inputs,
    *,
    resources: Resources = DEFAULT_RESOURCES,
    progress: Callable[[int], None] | None = None,
) -> Comparison:
    """Compare, and close the inputs."""
    from kldiv_cli.comparison import compare_sources

    with contextlib.closing(inputs):
        return compare_sources(settings, inputs, resources=resources, progress=progress)


def open_inputs(
    predictions: ArrayOrPath,
    targets: ArrayOrPath,
    weight: ArrayOrPath | None = None,
    pos_weight: ArrayOrPath | None = None,
    mask: ArrayOrPath | None = None,
    *,
    allow_external: bool = False,
) -> Inputs:
    """Open paths and addresses; arrays are taken as they are."""
    return _open(
        {
            "predictions": predictions,
            "targets": targets,
            "weight": weight,
            "pos_weight": pos_weight,
            "mask": mask,
        },
        allow_external=allow_external,
    )


def _open(
    values: Mapping[str, ArrayOrPath | None],
    names: Mapping[str, str] | None = None,
    *,
    allow_external: bool,
) -> Inputs:
    """Open every input that there is; `names` say what arrays in memory are called, if not by their role."""
    opened: dict[str, Source] = {}
    with contextlib.ExitStack() as stack:
        for role, value in values.items():
            if value is None:
                continue
            if isinstance(value, (str, os.PathLike)):
                opened[role] = open_source(os.fspath(value), allow_external=allow_external)
                stack.callback(opened[role].close)
            else:
                opened[role] = ArraySource(np.asanyarray(value), (names or {}).get(role, role))
        stack.pop_all()
    return Inputs(**opened)


def evaluate_to(
    spec: Spec,
    inputs: Inputs,
    *,
    output: str | None = None,
    distributions: str | None = None,
    output_dtype: str | None = None,
    force: bool = False,
    writers: tuple[MapWriter, ...] = (),
    resources: Resources = DEFAULT_RESOURCES,
    progress: Callable[[int], None] | None = None,
    sha256: bool = False,
    totals: bool = False,
) -> tuple[Evaluation, ...]:
    """Evaluate, with the per-element map going to `writers` and to the file `output`.

    The losses of distributions go to the file `distributions`; `sha256` asks for that of each input,
    `totals` for what the pair adds to those of many.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(inputs.close)
        sinks = _open_outputs(spec, inputs, (output, distributions), output_dtype, force, stack)
        of_elements, of_distributions = ([] if sink is None else [sink] for sink in sinks)
        evaluations = evaluate_sources(
            spec,
            inputs,
            writers=(*writers, *of_elements),
            distribution_writers=of_distributions,
            resources=resources,
            progress=progress,
            sha256=sha256,
            totals=totals,
        )
        commit_all((*of_elements, *of_distributions), force=force)
    return evaluations


def _open_outputs(
    spec: Spec,
    inputs: Inputs,
    outputs: tuple[str | None, str | None],
    dtype: str | None,
    force: bool,
    stack: contextlib.ExitStack,
) -> tuple[MapSink | None, MapSink | None]:
    """Begin the files asked for, of elements and of distributions; unfinished ones go with the stack."""
    if outputs == (None, None):
        for option, given in (("output_dtype", dtype is not None), ("force", force)):
            if given:
                raise UsageError(
                    f"{option}: needs an output; add --output FILE or --distributions FILE, or drop it"
                )
        return None, None
    if dtype not in (None, *OUTPUT_DTYPES):
        raise UsageError(f"output_dtype {dtype!r}: expected one of {', '.join(OUTPUT_DTYPES)}")
    from kldiv_cli.functional import normalize_axis
    from kldiv_cli.shapes import map_shape
    from kldiv_cli.sinks import check_output, open_map

    shape = map_shape(spec, inputs)
    axis = normalize_axis(spec.axis, len(shape))
    shapes = (shape, shape[:axis] + shape[axis + 1 :])
    files = [source.path for source in inputs.all() if source.path is not None]
    places = [
        None if output is None else check_output(output, files, force=force, option=option)
        for option, output in zip(("output", "distributions"), outputs, strict=True)
    ]
    if None not in places and len({place[0] for place in places if place is not None}) == 1:
        raise UsageError(f"distributions {outputs[1]}: is the file of --output too; choose another name")
    sinks: list[MapSink | None] = []
    for place, extent in zip(places, shapes, strict=True):
        sink = None if place is None else open_map(*place, extent, np.dtype(dtype or "float64"))
        if sink is not None:
            stack.callback(sink.discard)
        sinks.append(sink)
    return sinks[0], sinks[1]
