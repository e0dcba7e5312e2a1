"""Many pairs on one executor: each has its result, whatever happens to others."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dumps import (
    Trap,
    children_of,
    dying,
    pair_in,
    raising,
    sleeping,
    trapped_spec,
    write_dump,
    write_pair,
)

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.batch import run_batch, workers_within
from kldiv_cli.batch_pair import BatchPair, Outputs
from kldiv_cli.errors import ClusterGone, UsageError
from kldiv_cli.execution import Executor, Threads
from kldiv_cli.pair_result import PairResult, result_of
from kldiv_cli.processes import Processes
from kldiv_cli.spec import resolve_spec

posix = pytest.mark.skipif(not Path("/proc/self").exists(), reason="signals, and processes in /proc")
MIB = 1 << 20


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


@pytest.fixture(params=["threads", "one thread", "processes"])
def executor(request: pytest.FixtureRequest, processes: Processes) -> Executor:
    return {"threads": Threads(2), "one thread": Threads(1), "processes": processes}[request.param]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of a few KiB are large, and read in many blocks."""
    monkeypatch.setattr("kldiv_cli.batch._LARGE", 4096)
    monkeypatch.setattr("kldiv_cli.budget._SMALLEST_BLOCK", 100)
    monkeypatch.setattr("kldiv_cli.budget._LARGEST_BLOCK", 100)


@pytest.fixture
def bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs go in bundles from the first one on."""
    monkeypatch.setattr("kldiv_cli.batch_small.Pace.bundle", lambda pace: 8)


class Paced(Threads):
    """One thread, on which each pair is said to take so long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1)
        self._seconds = seconds
        self.bundles: list[tuple[BatchPair, ...]] = []

    def run(self, tasks, make_worker, **options):  # type: ignore[no-untyped-def]
        work = make_worker()
        for bundle in tasks:
            self.bundles.append(bundle)
            yield [dataclasses.replace(result, seconds=self._seconds) for result in work(bundle)]


class Elsewhere(Threads):
    """What a cluster does whose workers are lost with all they have done, and done again by others."""

    here = False

    def run(self, tasks, make_worker, **options):  # type: ignore[no-untyped-def]
        work = make_worker()
        for bundle in tasks:
            work(bundle)
            yield work(bundle)


class Gone(Threads):
    """A cluster that was lost."""

    def run(self, tasks, make_worker, **options):  # type: ignore[no-untyped-def]
        raise ClusterGone("the cluster: is gone")


def with_map(pair: BatchPair, directory: Path) -> BatchPair:
    return dataclasses.replace(pair, outputs=Outputs(output=str(directory / "maps" / f"{pair.name}.npy")))


def alone(pair: BatchPair) -> PairResult:
    """What `kldiv compute` comes to."""
    inputs = open_inputs(pair.predictions, pair.targets, **pair.files)
    size = sum(source.dtype.itemsize * int(np.prod(source.shape)) for source in inputs.all())
    evaluations = evaluate_to(pair.spec, inputs, totals=True)
    return result_of(pair.name, (pair.predictions, pair.targets), evaluations, bytes=size, seconds=0.0)


def told(result: PairResult) -> str:
    """All of a result but for how long it took."""
    parts = (getattr(result, name) for name in PairResult.__slots__ if name != "seconds")
    return repr(tuple(parts))


def by_name(results: list[PairResult]) -> dict[str, PairResult]:
    names = [result.name for result in results]
    assert len(set(names)) == len(names), "a pair came twice"
    return {result.name: result for result in results}


def check_all(results: list[PairResult], pairs: list[BatchPair], bad: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Each pair has one result; those that are not `bad` are as if each had been computed alone."""
    found = by_name(results)
    assert found.keys() == {pair.name for pair in pairs}
    assert {name for name, result in found.items() if result.error is not None} == bad
    for pair in pairs:
        if pair.name not in bad:
            assert told(found[pair.name]) == told(alone(pair))


# Results


@pytest.mark.parametrize("count", [1, 2, 9, 70])
def test_every_pair_has_the_result_that_it_has_alone(executor: Executor, tmp_path: Path, count: int) -> None:
    pairs = write_dump(tmp_path, count)
    check_all(list(run_batch(pairs, executor)), pairs)


def test_of_no_pairs_there_are_no_results(executor: Executor) -> None:
    assert list(run_batch([], executor)) == []


def test_pairs_may_be_of_other_kinds_than_their_neighbours(executor: Executor, tmp_path: Path) -> None:
    write_dump(tmp_path, 4)
    np.save(tmp_path / "mask.npy", np.array([1, 0, 1, 1, 0, 1], np.uint8))
    specs = [
        resolve_spec(log_softmax=-1, worst=2, quantiles=(0.25,)),
        resolve_spec(losses=("kl", "bce"), log_softmax=-1, by_target=True),
        resolve_spec(log_softmax=-1, mask=True, top1=True),
        resolve_spec(log_softmax=0),
    ]
    pairs = [
        pair_in(tmp_path, f"{k:03}", spec, {"mask": str(tmp_path / "mask.npy")} if spec.mask else None)
        for k, spec in enumerate(specs)
    ]
    check_all(list(run_batch(pairs, executor)), pairs)


@pytest.mark.usefixtures("small_blocks")
def test_large_pairs_are_computed_block_by_block_to_the_same_bits(executor: Executor, tmp_path: Path) -> None:
    pairs = write_dump(tmp_path, 12)
    large = write_dump(tmp_path, ["large", "huge"], rows=300)
    check_all(list(run_batch([*pairs[:5], *large, *pairs[5:]], executor)), [*pairs, *large])


@posix
@pytest.mark.usefixtures("small_blocks")
def test_small_pairs_do_not_wait_for_large_ones(processes: Processes, tmp_path: Path) -> None:
    small = write_dump(tmp_path, 8)
    (large,) = write_dump(tmp_path, ["large"], rows=300)
    # A large pair is opened here, and waits here.
    others_are_done = threading.Event()
    slow = pair_in(tmp_path, large.name, files=Trap(partial(others_are_done.wait, 60)))
    order = []
    for result in run_batch([slow, *small], processes):
        order.append(result.name)
        if len(order) == len(small):
            others_are_done.set()
    assert order[-1] == large.name
    assert sorted(order[:-1]) == [pair.name for pair in small]


@pytest.mark.usefixtures("small_blocks")
def test_progress_adds_up_to_the_sizes(executor: Executor, tmp_path: Path) -> None:
    pairs = [*write_dump(tmp_path, 9), *write_dump(tmp_path, ["large", "huge", "bad"], rows=300)]
    np.save(tmp_path / "p" / "bad.npy", np.ones((299, 5)))
    np.save(tmp_path / "p" / "003.npy", np.ones((7, 5)))
    steps: list[float] = []
    list(run_batch(pairs, executor, progress=steps.append))
    assert sum(steps) == pytest.approx(sum(pair.size for pair in pairs))
    assert len(steps) > len(pairs), "of large pairs every block is told"


def test_maps_go_to_files_of_their_own_whose_directories_are_made(executor: Executor, tmp_path: Path) -> None:
    pairs = []
    for pair in write_dump(tmp_path, 5):
        outputs = Outputs(
            output=str(tmp_path / "maps" / pair.name / "map.npy"),
            distributions=str(tmp_path / "rows" / f"{pair.name}.npy"),
        )
        pairs.append(dataclasses.replace(pair, outputs=outputs))
    check_all(list(run_batch(pairs, executor)), pairs)
    for pair in pairs:
        elements = np.load(tmp_path / "maps" / pair.name / "map.npy")
        np.testing.assert_allclose(np.load(tmp_path / "rows" / f"{pair.name}.npy"), elements.sum(axis=-1))
    assert not list(tmp_path.rglob("*.tmp"))


# Bundles


def test_slow_pairs_go_one_by_one(tmp_path: Path) -> None:
    executor, pairs = Paced(1.0), write_dump(tmp_path, 40)
    check_all(list(run_batch(pairs, executor)), pairs)
    assert list(map(len, executor.bundles)) == [1] * 40


def test_quick_pairs_go_in_bundles_once_it_is_known_that_they_are(tmp_path: Path) -> None:
    executor, pairs = Paced(0.0011), write_dump(tmp_path, 100)
    check_all(list(run_batch(pairs, executor)), pairs)
    assert list(map(len, executor.bundles)) == [1, 27, 27, 27, 18]


def test_a_bundle_is_of_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, pairs = Paced(1e-6), write_dump(tmp_path, 40)
    monkeypatch.setattr("kldiv_cli.batch_small._BUNDLE_BYTES", 3 * pairs[0].size)
    check_all(list(run_batch(pairs, executor)), pairs)
    assert [len(bundle) for bundle in executor.bundles] == [1, *[3] * 13]


# Bad pairs


def test_a_bad_pair_stops_no_other(executor: Executor, tmp_path: Path) -> None:
    pairs = write_dump(tmp_path, 20)
    (tmp_path / "p" / "003.npy").unlink()
    (tmp_path / "p" / "007.npy").write_bytes((tmp_path / "p" / "007.npy").read_bytes()[:-8])
    write_pair(tmp_path, "011", rows=7)
    np.save(tmp_path / "p" / "011.npy", np.ones((6, 5)))
    np.save(tmp_path / "p" / "013.npy", np.array([0, 1, 2, 3, 4, 5]))
    labels = pair_in(tmp_path, "013", resolve_spec(log_softmax=-1, targets_are="labels"))
    pairs[13] = labels
    results = list(run_batch(pairs, executor))
    check_all(results, pairs, {"003", "007", "011", "013"})
    errors = {name: str(result.error) for name, result in by_name(results).items()}
    for name, expected in {
        "003": "p/003.npy: no such file",
        "007": "p/007.npy: ",
        "011": "(7, 5)",
        "013": "label",
    }.items():
        assert expected in errors[name]
        assert "internal" not in errors[name]
        assert "\n" not in errors[name]


@pytest.mark.usefixtures("small_blocks")
def test_a_bad_large_pair_stops_no_other(executor: Executor, tmp_path: Path) -> None:
    pairs = [*write_dump(tmp_path, 3), *write_dump(tmp_path, ["x", "y", "z"], rows=300)]
    np.save(tmp_path / "p" / "x.npy", np.ones((299, 5)))
    np.save(tmp_path / "p" / "y.npy", np.full(300, 5))
    pairs[4] = pair_in(tmp_path, "y", resolve_spec(log_softmax=-1, targets_are="labels"), size=5000)
    results = list(run_batch(pairs, executor))
    check_all(results, pairs, {"x", "y"})


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows", [6, 300], ids=["small", "large"])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "out of memory; give --memory a smaller SIZE, or take fewer --workers"),
        (RuntimeError("what nobody foresaw"), "internal error: RuntimeError: what nobody foresaw; please"),
    ],
    ids=["memory", "unexpected"],
)
def test_an_error_that_was_not_foreseen_is_the_pairs_own(
    executor: Executor, tmp_path: Path, rows: int, error: Exception, expected: str
) -> None:
    pairs = [*write_dump(tmp_path, 12), *write_dump(tmp_path, ["bad"], rows=rows)]
    pairs.insert(5, pair_in(tmp_path, "bad", files=Trap(raising(error))))
    del pairs[-1]
    results = list(run_batch(pairs, executor))
    check_all(results, pairs, {"bad"})
    bad = by_name(results)["bad"]
    assert str(bad.error).startswith(expected)
    if isinstance(error, MemoryError):
        assert bad.defect is None
    else:
        assert bad.defect is not None
        assert "dumps.py" in "".join(traceback.format_exception(bad.defect)), "it is told where it was raised"


# Workers that die


@posix
@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(("name", "count"), [("SIGKILL", 3), ("SIGSEGV", 80)], ids=["alone", "in a bundle"])
def test_a_worker_that_dies_costs_the_pair_it_died_of(tmp_path: Path, name: str, count: int) -> None:
    pairs = write_dump(tmp_path, count)
    pairs[2] = pair_in(tmp_path, "002", files=Trap(dying(getattr(signal, name))))
    with Processes(2) as pool:
        results = list(run_batch(pairs, pool))
    check_all(results, pairs, {"002"})
    assert f"killed by {name}" in str(by_name(results)["002"].error)


@posix
@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("count", [3, 80], ids=["alone", "in a bundle"])
def test_a_worker_that_is_killed_once_costs_nothing(tmp_path: Path, count: int) -> None:
    pairs = write_dump(tmp_path, count)
    pairs[2] = pair_in(tmp_path, "002", files=Trap(dying(signal.SIGKILL, tmp_path / "killed")))
    with Processes(2) as pool:
        check_all(list(run_batch(pairs, pool)), pairs)
    assert (tmp_path / "killed").exists()


@posix
@pytest.mark.usefixtures("small_blocks")
def test_a_worker_of_a_large_pair_that_dies_costs_that_pair(tmp_path: Path) -> None:
    pairs = [*write_dump(tmp_path, 12), *write_dump(tmp_path, ["large", "other"], rows=300)]
    pairs[-2] = pair_in(tmp_path, "large", trapped_spec(dying(signal.SIGKILL)))
    with Processes(2) as pool:
        results = list(run_batch(pairs, pool))
    check_all(results, pairs, {"large"})
    assert "killed by SIGKILL" in str(by_name(results)["large"].error)


@posix
@pytest.mark.usefixtures("small_blocks")
def test_a_worker_of_a_large_pair_that_is_killed_once_costs_nothing(tmp_path: Path) -> None:
    pairs = [*write_dump(tmp_path, 3), *write_dump(tmp_path, ["large", "other"], rows=300)]
    sent = list(pairs)
    sent[-2] = pair_in(tmp_path, "large", trapped_spec(dying(signal.SIGKILL, tmp_path / "killed")))
    steps: list[float] = []
    with Processes(2) as pool:
        check_all(list(run_batch(sent, pool, progress=steps.append)), pairs)
    assert (tmp_path / "killed").exists()
    assert sum(steps) == pytest.approx(sum(pair.size for pair in pairs))


@posix
@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("how", ["killed", "raised"])
def test_what_is_done_again_replaces_its_own_maps_and_no_others(tmp_path: Path, how: str) -> None:
    pairs = [with_map(pair, tmp_path) for pair in write_dump(tmp_path, 16)]
    spring = dying(signal.SIGKILL) if how == "killed" else raising(RuntimeError("what nobody foresaw"))
    pairs[5] = dataclasses.replace(pairs[5], files=Trap(spring))
    theirs = tmp_path / "maps" / "006.npy"
    theirs.parent.mkdir()
    theirs.write_bytes(b"of somebody else")
    with Processes(2) as pool:
        results = list(run_batch(pairs, pool))
    check_all(results, pairs, {"005", "006"})
    assert "exists; overwrite it with --force" in str(by_name(results)["006"].error)
    assert theirs.read_bytes() == b"of somebody else"
    assert len(list(theirs.parent.iterdir())) == 15


def test_what_a_cluster_does_again_replaces_its_own_maps_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = [with_map(pair, Path()) for pair in write_dump(Path(), 5)]
    theirs = tmp_path / "maps" / "002.npy"
    theirs.parent.mkdir()
    theirs.write_bytes(b"of somebody else")
    results = list(run_batch(pairs, Elsewhere(1)))
    check_all(results, pairs, {"002"})
    assert by_name(results)["002"].error == "maps/002.npy: exists; overwrite it with --force"
    assert theirs.read_bytes() == b"of somebody else"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("rows", [6, 300], ids=["small", "large"])
def test_a_cluster_that_is_gone_is_the_fault_of_no_pair(tmp_path: Path, rows: int) -> None:
    with pytest.raises(ClusterGone, match="the cluster: is gone"):
        list(run_batch(write_dump(tmp_path, 3, rows=rows), Gone(2)))


# An end before the end


@posix
@pytest.mark.parametrize("how", ["closed", "raised"])
def test_who_stops_asking_ends_everything_at_once(tmp_path: Path, how: str) -> None:
    before = children_of(os.getpid())
    pairs = write_dump(tmp_path, 80)
    for k in (15, 16, 40, 41):
        pairs[k] = pair_in(tmp_path, f"{k:03}", files=Trap(sleeping(60)))
    start = time.monotonic()

    def stopped() -> None:
        with Processes(2) as pool:
            run = run_batch(pairs, pool)
            assert next(run).error is None
            assert children_of(os.getpid()) - before
            if how == "closed":
                run.close()  # type: ignore[attr-defined]
            else:
                raise KeyError("of who asked")

    if how == "closed":
        stopped()
    else:
        with pytest.raises(KeyError, match="of who asked"):
            stopped()
    assert time.monotonic() - start < 30
    assert children_of(os.getpid()) - before == set()


@posix
def test_no_unfinished_map_is_left_of_what_was_stopped(tmp_path: Path) -> None:
    """A worker that is in the middle of one puts its things away before it ends."""
    first, slow = write_dump(tmp_path, 2)
    sparse = tmp_path / "q" / "sparse.npy"
    np.lib.format.open_memmap(sparse, "w+", np.float32, (4_000_000, 10)).flush()  # type: ignore[no-untyped-call]
    slow = BatchPair(
        name="sparse",
        predictions=str(sparse),
        targets=str(sparse),
        spec=resolve_spec(predictions_are="logits", targets_are="logits"),
        outputs=Outputs(output=str(tmp_path / "maps" / "map.npy")),
        size=1,
    )
    with Processes(2) as pool:
        run = run_batch([first, slow], pool)
        assert next(run).name == first.name
        end = time.monotonic() + 20
        while not list(tmp_path.glob("maps/.*.tmp")) and time.monotonic() < end:
            time.sleep(0.01)
        assert list(tmp_path.glob("maps/.*.tmp"))
        run.close()  # type: ignore[attr-defined]
    assert list(tmp_path.glob("maps/*")) == []
    assert list(tmp_path.glob("maps/.*")) == []


def test_pairs_wait_for_who_takes_their_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.interleaving._WAITING", 4)
    pairs = write_dump(tmp_path, 40)
    done: list[float] = []
    results = []
    for result in run_batch(pairs, Threads(2), progress=done.append):
        results.append(result)
        # Four wait, and behind them one that there is no room for.
        most = len(results) + 4 + 1
        end = time.monotonic() + 60
        while len(done) < min(most, 40) and time.monotonic() < end:
            time.sleep(0.001)
        assert min(most, 40) <= len(done) <= most
    check_all(results, pairs)


def test_threads_that_are_stopped_end_with_what_they_had_begun(tmp_path: Path) -> None:
    pairs = write_dump(tmp_path, 40)
    run = run_batch(pairs, Threads(2))
    next(run)
    run.close()  # type: ignore[attr-defined]
    check_all(list(run_batch(pairs, Threads(2))), pairs)


# Memory


def test_workers_are_as_many_as_the_memory_goes_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.batch.available_workers", lambda: 4)
    pairs = write_dump(tmp_path, 1)
    assert workers_within(pairs, None, None) == 4
    assert workers_within(pairs, 9, None) == 9
    assert workers_within(pairs, None, 30 * MIB) == 2
    assert workers_within(pairs, None, 300 * MIB) == 4
    assert workers_within(pairs, 2, 30 * MIB) == 2
    with pytest.raises(UsageError, match=r"^memory 31457280 .* at least \d+ \(\S+MiB\) for 3 workers; "):
        workers_within(pairs, 3, 30 * MIB)
    with pytest.raises(UsageError, match=r"^memory 1048576 .* at least \d+ \(\S+MiB\) for one worker; "):
        workers_within(pairs, None, MIB)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_suffices_is_enough_for_every_pair(tmp_path: Path, processes: Processes, dtype: type) -> None:
    write_dump(tmp_path, 4, rows=300)
    np.save(tmp_path / "w.npy", np.ones((300, 5), dtype))
    files = {role: str(tmp_path / "w.npy") for role in ("weight", "pos_weight", "mask")}
    spec = resolve_spec(
        losses=("bce",), predictions_are="logits", weight=True, pos_weight=True, mask=True, worst=3
    )
    pairs = [pair_in(tmp_path, f"{k:03}", spec, files) for k in range(4)]
    low, high = 0, 1 << 30
    while high - low > 1:
        middle = (low + high) // 2
        try:
            workers_within(pairs, 2, middle)
            high = middle
        except UsageError:
            low = middle
    check_all(list(run_batch(pairs, processes, memory=high)), pairs)
