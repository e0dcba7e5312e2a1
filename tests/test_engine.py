from __future__ import annotations

import contextlib
import math
import multiprocessing
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kldiv_cli import streaming
from kldiv_cli.blocks import Block, Layout, axis_windows, cut
from kldiv_cli.distributions import finish
from kldiv_cli.engine import BlockWorker
from kldiv_cli.job import Job
from kldiv_cli.kernels import merge_partition
from kldiv_cli.observations import Observations, Tally
from kldiv_cli.partials import LossPartial
from kldiv_cli.pieces import Norm, Norms
from kldiv_cli.reductions import exact_sum
from kldiv_cli.sources import AnyArray, ArraySource, Inputs, open_source
from kldiv_cli.spec import Spec, resolve_spec
from kldiv_cli.target_split import TargetSplit, split_by_target

repeatable = settings(derandomize=True, deadline=None, max_examples=60)

SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@contextlib.contextmanager
def segments_of(length: int, piece: int) -> Iterator[None]:
    """Make a few elements take many segments and pieces, wherever the sizes were imported to."""
    sizes = {"SEGMENT": length, "PIECE": piece}
    with contextlib.ExitStack() as stack:
        for name, loaded in list(sys.modules.items()):
            if name.startswith("kldiv_cli"):
                for size in sizes.keys() & vars(loaded).keys():
                    stack.enter_context(mock.patch.object(loaded, size, sizes[size]))
        yield


def job_of(spec: Spec, predictions: AnyArray, targets: AnyArray) -> Job:
    return Job(
        spec=spec,
        shape=predictions.shape,
        axis=spec.axis % max(1, predictions.ndim),
        inputs=Inputs(ArraySource(predictions, "predictions"), ArraySource(targets, "targets")),
    )


def random_job(seed: int, shape: tuple[int, ...], axis: int, **options: Any) -> Job:
    """Logits of which some are -inf, and targets of which some are 0, 1 or logits."""
    rng = np.random.default_rng(seed)
    logits, targets = 3 * rng.standard_normal(shape), rng.random(shape).round(1)
    logits[rng.random(shape) < 0.1] = -math.inf
    return job_of(resolve_spec(log_softmax=axis, by_target=True, **options), logits, targets)


def everything(shape: tuple[int, ...]) -> Block:
    return tuple(slice(0, length) for length in shape)


def merged(parts: list[tuple[LossPartial, ...]]) -> tuple[LossPartial, ...]:
    total = tuple(LossPartial() for _ in parts[0])
    for part in parts:
        total = tuple(ours.merge(theirs) for ours, theirs in zip(total, part, strict=True))
    return total


def spelled(value: Any) -> Any:
    """The value with floats in hexadecimal, so that == compares bits and nan equals nan."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, np.ndarray):
        return (value.dtype.str, *value.tolist())
    return tuple(spelled(part) for part in value) if isinstance(value, tuple) else value


# Partials


@st.composite
def partials(draw: st.DrawFn) -> LossPartial:
    rng = np.random.default_rng(draw(SEEDS))
    losses = rng.standard_normal(5) * 10.0 ** rng.integers(-200, 200, 5)
    tallies = {
        name: Tally(count, draw(st.integers(0, 9)), draw(st.floats(-9, 9)))
        for name in Observations._fields
        if (count := draw(st.integers(0, 3)))
    }
    split = split_by_target(rng.choice([0, 0.5, 1], 5), losses) if draw(st.booleans()) else None
    return LossPartial(total=exact_sum(losses), observations=Observations(**tallies), split=split)


@repeatable
@given(partials())
def test_an_empty_partial_merges_without_effect(part: LossPartial) -> None:
    assert LossPartial().merge(part) == part == part.merge(LossPartial())


@repeatable
@given(partials(), partials(), partials())
def test_partials_merge_in_any_grouping(a: LossPartial, b: LossPartial, c: LossPartial) -> None:
    assert a.merge(b).merge(c) == a.merge(b.merge(c))


@repeatable
@given(partials(), partials())
def test_totals_splits_and_counts_merge_in_any_order(a: LossPartial, b: LossPartial) -> None:
    one, other = a.merge(b), b.merge(a)
    assert (one.total, one.split) == (other.total, other.split)
    for ours, theirs in zip(one.observations, other.observations, strict=True):
        assert (ours.count, ours.place) == (theirs.count, theirs.place)


def test_the_first_place_is_kept_of_terms_and_the_least_value_of_distributions() -> None:
    early, late = Tally(1, 3, 9.0), Tally(2, 8, -9.0)
    both = Observations(zero_terms=late, negative_distributions=early).merge(
        Observations(zero_terms=early, negative_distributions=late)
    )
    assert both.zero_terms == Tally(3, 3, 9.0)
    assert both.negative_distributions == Tally(3, 8, -9.0)


def test_a_partial_can_be_pickled() -> None:
    job = random_job(1, (4, 5), 1)
    (partial,) = BlockWorker(job).evaluate(everything(job.shape))
    assert pickle.loads(pickle.dumps(partial)) == partial


# Blocks


@repeatable
@given(SEEDS, SHAPES, st.data())
def test_the_blocks_of_any_cut_merge_to_the_whole(
    seed: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    losses = data.draw(st.sampled_from([("kl",), ("bce",), ("kl", "bce")]))
    job = random_job(seed, shape, axis, losses=losses)
    layout = Layout(shape=shape, axis=axis, fortran_order=data.draw(st.booleans()))
    budget = data.draw(st.integers(shape[axis], 60 + shape[axis]))
    with segments_of(4, data.draw(st.integers(1, 30))):
        worker = BlockWorker(job)
        blocks = data.draw(st.permutations(list(cut(layout, budget))))
        parts = merged([worker.evaluate(block) for block in blocks])
        whole = BlockWorker(job).evaluate(everything(shape))
    assert spelled(parts) == spelled(whole)


@repeatable
@given(SEEDS, SHAPES, st.data())
def test_windows_along_the_axis_join_to_the_whole(
    seed: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    axis, segment = data.draw(st.integers(0, len(shape) - 1)), data.draw(st.integers(1, 3))
    targets_are = data.draw(st.sampled_from(["probs", "logits"]))
    job = random_job(seed, shape, axis, losses=("kl", "bce"), targets_are=targets_are)
    with segments_of(segment, data.draw(st.integers(1, 30))):
        windows = list(axis_windows(everything(shape), axis, data.draw(st.integers(1, 40))))
        worker = BlockWorker(job)
        norms = joined_norms(worker, windows)
        results = [worker.evaluate_window(window, norms) for window in windows]
        obtained = finish(job, everything(shape), streaming._joined(results))
        whole = BlockWorker(job).evaluate(everything(shape))
    assert spelled(obtained) == spelled(whole)


def joined_norms(worker: BlockWorker, windows: list[Block]) -> Norms:
    both: list[Norm | None] = []
    for of_windows in zip(*map(worker.partition, windows), strict=True):
        known = [partition for partition in of_windows if partition is not None]
        parts = [np.concatenate(parts, axis=1) for parts in zip(*known, strict=True)]
        with np.errstate(all="ignore"):
            both.append(Norm(*merge_partition(*parts)) if known else None)
    return Norms(*both)


@repeatable
@given(SEEDS, SHAPES, st.data())
def test_a_worker_remembers_nothing_of_the_blocks_before(
    seed: int, shape: tuple[int, ...], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    job = random_job(seed, shape, axis, losses=("kl", "bce"))
    blocks = list(cut(Layout(shape=shape, axis=axis), shape[axis] * 3))
    worker = BlockWorker(job)
    order = data.draw(st.lists(st.sampled_from(blocks), max_size=6))
    for block in order:
        assert spelled(worker.evaluate(block)) == spelled(BlockWorker(job).evaluate(block))


def test_there_is_a_partial_for_each_loss_in_their_order() -> None:
    shape = (3, 4)
    both = BlockWorker(random_job(2, shape, 1, losses=("bce", "kl"))).evaluate(everything(shape))
    for part, loss in zip(both, ("bce", "kl"), strict=True):
        assert (part,) == BlockWorker(random_job(2, shape, 1, losses=(loss,))).evaluate(everything(shape))


def test_the_map_goes_to_every_writer_in_the_shape_of_the_block() -> None:
    written: list[tuple[int, Block, tuple[int, ...]]] = []

    class Writer:
        def __init__(self, number: int) -> None:
            self.number = number

        def write(self, block: Block, values: npt.NDArray[Any]) -> None:
            written.append((self.number, block, values.shape))

    job = random_job(3, (4, 5, 2), 1)._replace(writers=(Writer(0), Writer(1)))
    block = (slice(1, 3), slice(0, 5), slice(1, 2))
    BlockWorker(job).evaluate(block)
    assert written == [(0, block, (2, 5, 1)), (1, block, (2, 5, 1))]


def test_there_is_a_split_only_where_it_is_asked_for() -> None:
    job = job_of(resolve_spec(), np.zeros((2, 2)), np.ones((2, 2)))
    (plain,) = BlockWorker(job).evaluate(everything((2, 2)))
    assert plain.split is None
    (split,) = BlockWorker(job._replace(spec=resolve_spec(by_target=True))).evaluate(everything((2, 2)))
    assert isinstance(split.split, TargetSplit)


@pytest.mark.parametrize("dtype", ["u1", "i8", ">i4", "u8"])
def test_labels_of_any_integer_dtype_choose_a_class(dtype: str) -> None:
    x = np.log(np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]]))
    job = job_of(resolve_spec(targets_are="labels"), x, np.array([0, 2]).astype(dtype))
    (partial,) = BlockWorker(job).evaluate(everything((2, 3)))
    assert partial.total.value == math.fsum([math.log(2.0)] * 2)


def test_wrong_labels_of_a_block_are_counted_and_the_first_placed_in_the_array() -> None:
    labels = np.zeros((4, 6), int)
    labels[2, 3:] = [7, -1, 9]
    job = job_of(resolve_spec(targets_are="labels"), np.zeros((4, 6, 5)), labels)
    block = (slice(1, 4), slice(2, 6), slice(0, 5))
    (partial,) = BlockWorker(job).evaluate(block)
    assert partial.observations.labels_outside == Tally(3, 2 * 6 + 3, 7)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("loss", ["kl", "bce"])
def test_odd_terms_are_found_in_any_number_of_dimensions(shape: tuple[int, ...], loss: str) -> None:
    """The last element is worst: probability 0 where the target is 1."""
    p, y = np.full(shape, 0.5), np.full(shape, 0.5)
    p.flat[-1], y.flat[-1] = 0.0, 1.0
    job = job_of(resolve_spec(losses=(loss,), predictions_are="probs"), p, y)
    (partial,) = BlockWorker(job).evaluate(everything(shape))
    found = partial.observations.infinite_terms if loss == "kl" else partial.observations.clamped_terms
    assert found == Tally(1, p.size - 1, math.inf if loss == "kl" else 100.0)


# Other processes


FORMATS = ["npy", "npz", "npz deflated", "hdf5", "hdf5 gzip"]


def stored(path: Path, form: str, array: AnyArray) -> str:
    if form == "npy":
        np.save(path, array)
        return f"{path}.npy"
    if form.startswith("npz"):
        save = np.savez_compressed if "deflated" in form else np.savez
        save(f"{path}.npz", values=array)
        return f"{path}.npz"
    with h5py.File(f"{path}.h5", "w") as file:
        file.create_dataset("values", data=array, compression="gzip" if "gzip" in form else None)
    return f"{path}.h5"


def stored_job(directory: Path, form: str, selection: str = "") -> tuple[Job, Job]:
    """A job on files and the same on arrays in memory."""
    in_memory = random_job(5, (6, 9), 1, losses=("kl", "bce"))
    predictions, targets, *_ = in_memory.inputs
    assert isinstance(predictions, ArraySource)
    assert isinstance(targets, ArraySource)
    on_disk = Inputs(
        predictions=open_source(stored(directory / "predictions", form, predictions.array) + selection),
        targets=open_source(stored(directory / "targets", form, targets.array) + selection),
    )
    return in_memory._replace(inputs=on_disk), in_memory


def evaluate_whole(job: Job) -> tuple[LossPartial, ...]:
    return BlockWorker(job).evaluate(everything(job.shape))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("selection", ["", "::[:, :]"])
def test_a_job_on_files_can_be_pickled_and_gives_the_same_partials(
    tmp_path: Path, form: str, selection: str
) -> None:
    job, in_memory = stored_job(tmp_path, form, selection)
    expected = evaluate_whole(in_memory)
    assert evaluate_whole(job) == expected
    copy = pickle.loads(pickle.dumps(job))
    assert evaluate_whole(copy) == expected
    copy.inputs.close()
    job.inputs.close()


def test_a_spawned_process_gives_the_same_partials(tmp_path: Path) -> None:
    jobs = [stored_job(tmp_path, form)[0] for form in ("npy", "hdf5 gzip")]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        obtained = list(pool.map(evaluate_whole, jobs))
    assert obtained == [evaluate_whole(job) for job in jobs]
    for job in jobs:
        job.inputs.close()
