"""A real scheduler and its workers, as processes of their own in another directory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import operator
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest

pytest.importorskip("distributed")

import cluster_tasks
from distributed import Client
from distributed.core import rpc
from distributed.protocol.pickle import dumps

from kldiv_cli import check, compare, evaluate
from kldiv_cli.__main__ import main
from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.batch import run_batch
from kldiv_cli.batch_pair import BatchPair, with_files
from kldiv_cli.budget import Resources
from kldiv_cli.cluster import Cluster, connect
from kldiv_cli.cluster_run import ClusterRun
from kldiv_cli.errors import ClusterGone, InputChanged, InputError, InputNotFound, UsageError, WorkerDied
from kldiv_cli.spec import resolve_spec

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_data"
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


class Dask(NamedTuple):
    """Where a scheduler is, and where its workers run."""

    address: str
    directory: Path
    scheduler: subprocess.Popen[bytes]

    @contextlib.contextmanager
    def worker(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """One more worker, of one thread, that is there by now."""
        before = self.threads()
        arguments = ("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        process = start(*arguments, directory=self.directory, **environment)
        try:
            wait(lambda: self.threads() > before)
            yield process
        finally:
            process.kill()
            process.wait()
            wait(lambda: self.scheduler.poll() is not None or self.threads() <= before)

    def threads(self) -> int:
        workers = self._asked("identity", n_workers=-1)["workers"]
        return sum(worker["nthreads"] for worker in workers.values())

    def tasks(self) -> int:
        """How many the scheduler knows of."""
        return int(self._asked("run_function", function=dumps(count_tasks))["result"])

    def _asked(self, question: str, **arguments: Any) -> Any:
        """What the scheduler answers to one who is no client of it."""

        async def ask() -> Any:
            async with rpc(self.address) as scheduler:
                return await getattr(scheduler, question)(**arguments)

        return asyncio.run(ask())


def count_tasks(dask_scheduler: object) -> int:
    return len(dask_scheduler.tasks)  # type: ignore[attr-defined]


def start(*arguments: str, directory: Path, **environment: str) -> subprocess.Popen[bytes]:
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [environment.pop("PYTHONPATH", "")])])
    with (directory / f"{arguments[0]}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments],
            cwd=directory,
            env={**os.environ, **environment, "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def is_written(file: Path) -> bool:
    """It is empty for a moment."""
    return file.exists() and file.stat().st_size > 0


@contextlib.contextmanager
def scheduling(directory: Path, **environment: str) -> Iterator[Dask]:
    file = directory / "scheduler.json"
    arguments = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    process = start(*arguments, "--scheduler-file", str(file), directory=directory, **environment)
    try:
        wait(lambda: is_written(file))
        yield Dask(json.loads(file.read_text())["address"], directory, process)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    with scheduling(tmp_path_factory.mktemp("dask")) as dask, dask.worker(), dask.worker():
        yield dask


@pytest.fixture(scope="module")
def cluster(dask: Dask) -> Iterator[Cluster]:
    with connect(dask.address) as cluster:
        yield cluster


# Tasks


@pytest.mark.parametrize("tasks", [0, 1, 2, 1000])
def test_every_task_yields_its_result_once(cluster: Cluster, tasks: int) -> None:
    told: list[int] = []
    results = cluster.run(iter(range(tasks)), cluster_tasks.doubled, told=told.append)
    assert sorted(results) == [2 * task for task in range(tasks)]
    assert sorted(told) == list(range(tasks))


@pytest.mark.parametrize("tasks", [0, 1, 9, 1000])
def test_results_are_merged_there_and_few_come_back(cluster: Cluster, tasks: int) -> None:
    told: list[int] = []
    results = list(cluster.run(range(tasks), cluster_tasks.doubled, merge=operator.add, told=told.append))
    assert sum(results) == tasks * (tasks - 1)
    # The first ones, by which it is found how long a task takes, and one of all others.
    assert len(results) <= min(tasks, 2 * 3 * 2 + 1)
    assert sorted(told) == list(range(tasks))


def test_more_results_than_are_merged_come_back_in_parts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kldiv_cli.cluster_run._FAN_IN", 2)
    monkeypatch.setattr("kldiv_cli.cluster_run._LARGEST_BUNDLE", 1)
    results = list(cluster.run(range(37), cluster_tasks.doubled, merge=operator.add))
    assert sum(results) == 37 * 36
    assert 37 // 2**3 <= len(results) <= 37 // 2**3 + 2 * 3 * 2 + 1


def test_a_thread_makes_one_worker_in_a_run_for_all_of_its_tasks(cluster: Cluster) -> None:
    results = list(cluster.run(range(200), cluster_tasks.numbered))
    processes = {process for process, _, _ in results}
    assert len(processes) == 2
    for process in processes:
        done = sorted(count for of, count, _ in results if of == process)
        assert done == list(range(1, len(done) + 1))


def test_short_tasks_go_in_bundles_and_large_results_do_not(cluster: Cluster) -> None:
    def is_told(mark: int) -> bool:
        return mark >= 0

    def most_at_once(make_worker: Callable[[], Callable[[int], object]]) -> int:
        together = [0]
        for _ in cluster.run(range(100), make_worker, told=together.append):
            together.extend([-1])
        return max(len(list(group)) for told, group in itertools.groupby(together, is_told) if told)

    assert most_at_once(cluster_tasks.doubled) > 12
    assert most_at_once(partial(cluster_tasks.large, 1 << 20)) <= 12


def test_only_as_many_tasks_are_taken_as_are_under_way(cluster: Cluster) -> None:
    tasks = itertools.count()
    results = cluster.run(tasks, partial(cluster_tasks.slow, 0.05))
    for _ in range(4):
        next(results)
    results.close()  # type: ignore[attr-defined]
    assert next(tasks) < 30


def test_several_threads_run_tasks_at_the_same_time(cluster: Cluster) -> None:
    results: dict[int, int] = {}

    def run(number: int) -> None:
        results[number] = sum(cluster.run(range(50 * number), cluster_tasks.doubled, merge=operator.add))

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: 50 * number * (50 * number - 1) for number in (1, 2, 3)}


@pytest.mark.parametrize("merge", [None, operator.add], ids=["alone", "merged"])
def test_an_error_is_raised_as_itself_with_its_trace(
    dask: Dask, cluster: Cluster, merge: Callable[[int, int], int] | None
) -> None:
    with pytest.raises(InputError) as caught:
        list(cluster.run(itertools.count(), cluster_tasks.failing, merge=merge))
    assert str(caught.value) == "task 7: is bad"
    assert "in work" in "".join(caught.value.__notes__)
    wait(lambda: dask.tasks() == 0)


def test_a_worker_that_can_not_be_made_is_an_error_each_time(cluster: Cluster) -> None:
    for _ in range(2):
        with pytest.raises(InputError, match=r"^no worker can be made"):
            list(cluster.run(range(5), cluster_tasks.never_made))


def test_nothing_is_left_on_the_cluster(dask: Dask, cluster: Cluster) -> None:
    list(cluster.run(range(200), cluster_tasks.doubled, merge=operator.add))
    list(cluster.run(range(200), cluster_tasks.doubled))
    wait(lambda: dask.tasks() == 0)


# Pairs


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunked and compressed, as plain bytes, and packed."""
    directory = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(5)
    shape = (300, 40, 50)
    logits = rng.standard_normal(shape).astype(np.float32)
    probs = rng.random(shape)
    probs /= probs.sum(axis=-1, keepdims=True)
    mask = rng.random(shape) < 0.7
    mask[100:160] = False
    with h5py.File(directory / "a.h5", "w") as file:
        for name, array in (("logits", logits), ("probs", probs), ("mask", mask)):
            file.create_dataset(name, data=array, chunks=(7, 11, 50), compression="gzip", compression_opts=1)
    np.save(directory / "logits.npy", logits)
    np.save(directory / "other.npy", logits + np.float32(0.1))
    np.savez_compressed(directory / "labels.npz", rng.integers(0, 50, shape[:2]))
    return directory


OPTIONS = [
    {"log_softmax": -1},
    {"log_softmax": 0, "mask": True},
    {"log_softmax": 1, "worst": 7, "blocks_of": 10, "by_target": True, "mask": True},
    {"losses": ("kl", "bce"), "log_softmax": -1, "top1": True, "ignore_value": 0.5},
    {"losses": ("bce",), "predictions_are": "logits", "mask": True},
]


@pytest.mark.parametrize("few", [True, False], ids=["kept", "sketched"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_results_are_those_of_threads_to_the_last_bit(
    cluster: Cluster, arrays: Path, options: dict[str, object], few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The working directory of the workers is another one.
    monkeypatch.chdir(arrays)
    if not few:
        monkeypatch.setattr("kldiv_cli.evaluation.LIMIT", 1000)
    spec = resolve_spec(**options)  # type: ignore[arg-type]
    files = {"mask": "a.h5::mask"} if spec.mask else {}

    def compute(resources: Resources) -> str:
        inputs = open_inputs("logits.npy", "a.h5::probs", **files)
        return repr(evaluate_to(spec, inputs, resources=resources, totals=True, sha256=True))

    assert compute(Resources(executor=cluster)) == compute(Resources(workers=2))


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_of_huge_distributions_are_those_of_threads(
    cluster: Cluster, arrays: Path, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kldiv_cli.budget._SMALLEST_BLOCK", 1 << 14)
    monkeypatch.setattr("kldiv_cli.budget._LARGEST_BLOCK", 1 << 14)
    monkeypatch.setattr("kldiv_cli.blocks.SEGMENT", 1 << 12, raising=False)
    spec = resolve_spec(log_softmax=axis, predictions_are="logits", targets_are="logits", worst=3)
    huge = arrays / f"huge{axis}.npy"
    shape = (3, 50_000) if axis else (50_000, 3)
    np.save(huge, np.random.default_rng(axis).standard_normal(shape).astype(np.float32))
    results, runs = [], 0
    begin = Cluster.run

    def counted(*arguments: object, **options: object) -> Iterator[object]:
        nonlocal runs
        runs += 1
        return begin(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Cluster, "run", counted)
    for resources in (Resources(workers=1), Resources(executor=cluster)):
        inputs = open_inputs(f"{huge}", f"{huge}")
        results.append(repr(evaluate_to(spec, inputs, resources=resources)))
    assert results[0] == results[1]
    assert runs > 1


@pytest.mark.parametrize("output", ["output", "distributions"])
def test_maps_are_those_of_threads(cluster: Cluster, arrays: Path, tmp_path: Path, output: str) -> None:
    spec = resolve_spec(log_softmax=-1)
    for name, resources in (("a", Resources(executor=cluster)), ("b", Resources(workers=1))):
        inputs = open_inputs(f"{arrays}/a.h5::logits", f"{arrays}/a.h5::probs")
        evaluate_to(spec, inputs, resources=resources, **{output: str(tmp_path / f"{name}.npy")})  # type: ignore[arg-type]
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_a_script_names_the_scheduler_or_the_file_that_it_wrote(
    dask: Dask, arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(arrays)
    pair = ("logits.npy", "a.h5::probs")
    file = str(dask.directory / "scheduler.json")
    plain = evaluate(*pair, log_softmax=-1)
    assert repr(evaluate(*pair, log_softmax=-1, scheduler=dask.address)) == repr(plain)
    checked = check(*pair, log_softmax=-1, limits=["distmean < 9"], scheduler=file, memory=16 << 20)
    assert checked.evaluations[0].sum == plain.sum
    options = {"labels": "labels.npz", "worst": 3, "blocks_of": 10}
    compared = compare("logits.npy", "other.npy", **options)  # type: ignore[arg-type]
    there = compare("logits.npy", "other.npy", scheduler=file, **options)  # type: ignore[arg-type]
    assert repr(there) == repr(compared)


def test_arrays_in_memory_are_sent_unless_they_are_large(
    cluster: Cluster, arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_spec(log_softmax=-1)
    logits = np.load(arrays / "logits.npy")

    def compute(resources: Resources) -> str:
        return repr(evaluate_to(spec, open_inputs(logits, f"{arrays}/a.h5::probs"), resources=resources))

    assert compute(Resources(executor=cluster)) == compute(Resources(workers=1))
    monkeypatch.setattr("kldiv_cli.cluster_run._MOST_SENT", 1 << 20)
    with pytest.raises(UsageError, match=r"bytes of arrays in memory.*save them and name the file"):
        compute(Resources(executor=cluster))


def test_a_large_input_is_cut_for_all_workers_and_memory_is_that_of_each(dask: Dask) -> None:
    from kldiv_cli.placement import resources_of

    with resources_of(None, None, dask.address) as resources:
        assert resources.memory == 2 * (32 << 20)
    array = np.zeros((4, 4))
    with pytest.raises(UsageError, match=r"^memory 1048576 bytes: .* for each thread of the cluster; "):
        evaluate(array, array, memory=1 << 20, scheduler=dask.address)
    there = ("--memory", "1MiB", "--scheduler", dask.address)
    told = kldiv("batch", "suite.toml", *there, directory=SAMPLES).stderr
    assert re.fullmatch(r"kldiv: error: --memory 1048576 bytes: .* for each thread of the cluster.*\n", told)


# What goes wrong


@posix
@pytest.mark.parametrize("merge", [None, operator.add], ids=["alone", "merged"])
def test_the_tasks_of_a_worker_that_is_killed_are_run_by_others(
    dask: Dask, merge: Callable[[int, int], int] | None
) -> None:
    with dask.worker() as doomed, connect(dask.address) as cluster:
        assert cluster.workers == 3
        told: list[int] = []

        def tell(task: int) -> None:
            told.append(task)
            if len(told) == 20:
                doomed.kill()

        results = list(cluster.run(range(100), partial(cluster_tasks.slow, 0.01), merge=merge, told=tell))
        assert sum(results) == 4950
        assert sorted(told) == list(range(100))


@posix
def test_results_that_are_lost_before_they_are_fetched_are_computed_again(tmp_path: Path) -> None:
    with scheduling(tmp_path) as dask, contextlib.ExitStack() as workers:
        holder = workers.enter_context(dask.worker())
        cluster = workers.enter_context(connect(dask.address))
        for merge in (None, operator.add):
            told: list[int] = []

            def lose(task: int, told: list[int] = told) -> None:
                nonlocal holder
                told.append(task)
                if len(told) == 8:
                    holder.kill()
                    wait(lambda: "finished" not in states(cluster))
                    holder = workers.enter_context(dask.worker())

            results = list(cluster.run(range(20), partial(cluster_tasks.slow, 0.01), merge=merge, told=lose))
            assert sum(results) == 190
            assert sorted(told) == list(range(20))


@posix
def test_a_result_that_is_lost_and_kills_who_computes_it_again_costs_no_other(tmp_path: Path) -> None:
    with (
        scheduling(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as dask,
        contextlib.ExitStack() as workers,
    ):
        holder = workers.enter_context(dask.worker())
        cluster = workers.enter_context(connect(dask.address))

        def lose(task: int) -> None:
            if task == 0:
                for _ in range(2):
                    workers.enter_context(dask.worker())
                holder.kill()
                wait(lambda: "error" in states(cluster))

        work = partial(cluster_tasks.dying_again, tmp_path / "before")
        results = cluster.run(range(4), work, told=lose, failed=lambda task, error: -1, merge=operator.add)
        assert sorted(results) == [-1, 1, 2, 3]


def states(cluster: Cluster) -> set[str]:
    """What its client knows of all that is on it."""
    return {state.status for state in list(cluster._client.futures.values())}


@posix
def test_a_run_in_which_workers_died_leaves_the_cluster_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kldiv_cli.cluster_run._LARGEST_BUNDLE", 1)
    with (
        scheduling(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as dask,
        dask.worker(),
        dask.worker(),
        connect(dask.address) as cluster,
    ):
        with pytest.raises(WorkerDied, match="died over the same blocks"):
            list(cluster.run(range(200), partial(cluster_tasks.dying_at, 111), merge=operator.add))
        assert sum(cluster.run(range(50), cluster_tasks.doubled, merge=operator.add)) == 50 * 49
        wait(lambda: dask.tasks() == 0)


@posix
def test_a_pair_is_the_same_when_a_worker_is_killed_meanwhile(dask: Dask, arrays: Path) -> None:
    spec = resolve_spec(log_softmax=-1, worst=5)
    killed = threading.Event()
    with dask.worker() as doomed, connect(dask.address) as cluster:

        def kill(done: int) -> None:
            if not killed.is_set():
                doomed.kill()
                killed.set()

        results = []
        for resources, progress in ((Resources(executor=cluster), kill), (Resources(workers=1), None)):
            inputs = open_inputs(f"{arrays}/a.h5::logits", f"{arrays}/a.h5::probs")
            results.append(repr(evaluate_to(spec, inputs, resources=resources, progress=progress)))
    assert killed.is_set()
    assert results[0] == results[1]


@posix
def test_tasks_that_kill_every_worker_and_a_scheduler_that_is_gone_are_an_error_each(tmp_path: Path) -> None:
    with scheduling(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as dask:
        with pytest.raises(
            UsageError, match=r"has no workers after 0.5 s; start one with dask worker tcp://"
        ):
            connect(dask.address, patience=0.5)
        with dask.worker(), connect(dask.address) as cluster:
            with pytest.raises(
                WorkerDied, match=r"1 workers? died over the same blocks, last tcp://"
            ) as caught:
                list(cluster.run(range(3), cluster_tasks.dying))
            assert "\n" not in str(caught.value)
        with dask.worker(), connect(dask.address) as cluster:
            results = cluster.run(itertools.count(), cluster_tasks.doubled)
            next(results)
            dask.scheduler.kill()
            dask.scheduler.wait()
            with pytest.raises(ClusterGone, match=r"scheduler tcp://[^ ]+: is gone"):
                list(results)


@posix
@pytest.mark.parametrize("merge", [None, operator.add], ids=["alone", "merged"])
def test_a_cluster_without_any_workers_left_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: Callable[[int, int], int] | None
) -> None:
    monkeypatch.setattr("kldiv_cli.cluster_run._DESERTED", 0.5)
    with scheduling(tmp_path) as dask, dask.worker() as worker, connect(dask.address) as cluster:
        results = cluster.run(itertools.count(), partial(cluster_tasks.slow, 0.02), merge=merge)
        next(results)
        worker.kill()
        for run in (results, cluster.run(range(3), cluster_tasks.doubled)):
            with pytest.raises(ClusterGone, match=r"has had no workers for 0\.5 s; ") as caught:
                list(run)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "missing port number"),
        ("udp://10.0.0.1:8786", "unknown address scheme"),
        ("127.0.0.1:1", "no answer from a Dask scheduler"),
        ("scheduler.json", r"^scheduler scheduler\.json: no such file; expected that which dask scheduler"),
        ("nowhere/scheduler", r"^scheduler nowhere/scheduler: no such file; expected"),
        (
            str(SAMPLES / "baseline.json"),
            r"baseline\.json: not a scheduler's file; expected that which .* or an address such as tcp://10\.",
        ),
        (str(SAMPLES / "digits_teacher_probs.npy"), "not a scheduler's file"),
        ("tls://127.0.0.1:1", "TLS needs certificates, and Dask is configured with none; set DASK_DIST"),
    ],
)
def test_an_address_without_a_scheduler_is_one_line(address: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        connect(address, patience=0.5)
    assert "\n" not in str(caught.value)


@contextlib.contextmanager
def listening(says: bytes) -> Iterator[str]:
    """The address of a server that says this to everybody, and then is mute."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as accepted:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    accepted.enter_context(connection)
                    connection.sendall(says)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@posix
@pytest.mark.parametrize(
    ("says", "message"),
    [
        (b"", r"no answer from a Dask scheduler \(none within 0\.5 s\)"),
        (
            b"HTTP/1.0 400 Bad request\r\n\r\n",
            "what answers is no Dask scheduler, it doesn't speak its protocol",
        ),
    ],
    ids=["mute", "other"],
)
def test_what_is_no_scheduler_is_one_line_at_once(says: bytes, message: str) -> None:
    before = threading.active_count()
    with listening(says) as address, pytest.raises(UsageError, match=message) as caught:
        connect(address, patience=0.5)
    assert "\n" not in str(caught.value)
    assert threading.active_count() == before


def test_a_worker_is_no_scheduler_but_says_where_its_own_is(dask: Dask) -> None:
    with Client(dask.address, set_as_default=False) as client:
        worker = next(iter(client.nthreads()))
    with pytest.raises(
        UsageError, match=rf"a Dask worker, expected a scheduler; its own is at {dask.address}$"
    ):
        connect(worker)


def test_a_loop_that_runs_already_is_no_hindrance_to_a_connection(dask: Dask) -> None:
    async def notebook() -> int:
        with connect(dask.address) as cluster:
            return cluster.workers

    assert asyncio.run(notebook()) == 2


def test_a_greeting_that_came_together_with_another_message_is_waited_for_anew(
    dask: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask's own client asserts that it comes alone."""
    tries = itertools.count()
    connected = Client._ensure_connected

    async def missed(client: Client, **arguments: Any) -> None:
        await connected(client, **arguments)
        assert next(tries) > 0

    monkeypatch.setattr(Client, "_ensure_connected", missed)
    with connect(dask.address) as cluster:
        assert sorted(cluster.run(range(3), cluster_tasks.doubled)) == [0, 2, 4]
    assert next(tries) > 1


def test_workers_with_other_versions_are_refused(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.__version__", "99.0")
    with pytest.raises(UsageError, match=r"worker tcp://[^ ]+: has kldiv-cli [\d.]+, expected 99.0"):
        connect(dask.address)


def test_workers_that_join_with_other_versions_are_refused(
    dask: Dask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(dask.address) as cluster:
        monkeypatch.setattr("numpy.__version__", "99.0")
        with pytest.raises(UsageError, match=r"a worker of the cluster: has numpy [\d.]+, expected 99.0"):
            list(cluster.run(range(3), cluster_tasks.doubled))


def test_a_worker_without_kldiv_is_refused(dask: Dask, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['kldiv_cli'] = None\n")
    with (
        dask.worker(PYTHONPATH=str(tmp_path)),
        pytest.raises(UsageError, match=r"worker tcp://[^ ]+ can't import kldiv .*; pip install kldiv-cli=="),
    ):
        connect(dask.address)


@pytest.mark.parametrize("batch", [False, True], ids=["compute", "batch"])
def test_a_store_is_found_by_workers_in_another_directory_and_another_in_its_place_is_refused(
    cluster: Cluster, tmp_path: Path, batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr = pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    array, spec = np.full((6, 4), 0.25), resolve_spec(predictions_are="probs")
    zarr.create_array("a.zarr", name="x", data=array, chunks=(3, 4))

    def compute() -> str | None:
        if batch:
            pair = BatchPair(name="p", predictions="a.zarr::x[:]", targets="a.zarr::x", spec=spec, size=1)
            (result,) = run_batch([pair], cluster)
            return result.error
        try:
            evaluate_to(spec, inputs, resources=Resources(executor=cluster))
        except InputError as error:
            return str(error)
        return None

    inputs = open_inputs("a.zarr::x", array)
    assert compute() is None
    shutil.copytree("a.zarr", "copy", copy_function=shutil.copy)

    def replaced(pair: BatchPair) -> BatchPair:
        found = with_files(pair)
        replace()
        return found

    def replace() -> None:
        Path("a.zarr").rename("before")
        Path("copy").rename("a.zarr")

    if batch:
        monkeypatch.setattr("kldiv_cli.batch_small.with_files", replaced)
    else:
        replace()
    assert re.match(
        r"a\.zarr::x: a worker on \S+ sees another store at /.*/a\.zarr, expected", str(compute())
    )


def test_what_a_worker_has_no_package_or_no_settings_for_names_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("obstore")
    monkeypatch.chdir(tmp_path)
    array, spec = np.full((6, 4), 0.25), resolve_spec(predictions_are="probs")
    zarr.create_array("a.zarr", data=array)
    Path("sitecustomize.py").write_text("import sys\nsys.modules['zarr'] = None\n")
    settings = {"AWS_ENDPOINT_URL": "nonsense", "AWS_SKIP_SIGNATURE": "1", "PYTHONPATH": str(tmp_path)}
    pairs = [
        BatchPair(name=name, predictions=name, targets=name, spec=spec, size=1)
        for name in ("a.zarr", "s3://b/a.npy", "s3://b/a.zarr")
    ]
    missing = r"a worker on \S+: the package zarr is not installed there; all machines need the extras"
    with scheduling(tmp_path) as dask, dask.worker(**settings), connect(dask.address) as cluster:
        with pytest.raises(UsageError, match=f"^{missing}"):
            evaluate_to(spec, open_inputs("a.zarr", array), resources=Resources(executor=cluster))
        errors = {result.name: str(result.error) for result in run_batch(pairs, cluster)}
    assert re.match(missing, errors["a.zarr"])
    assert re.match(
        r"s3://b: a worker on \S+: AWS_ENDPOINT_URL is 'nonsense', expected http", errors["s3://b/a.npy"]
    )
    assert re.match(
        r"s3://b/a\.zarr: a worker on \S+: a Zarr store, read by the package zarr .*there is none; pip",
        errors["s3://b/a.zarr"],
    )


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
def test_a_file_that_workers_do_not_see_is_named_with_what_to_do(
    cluster: Cluster, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(3).random((50, 10))
    if name == "a.h5":
        with h5py.File(name, "w") as file:
            file.create_dataset("x", data=array, chunks=(5, 10))
    else:
        (np.save if name == "a.npy" else np.savez_compressed)(name, array)
    spec, inputs = resolve_spec(predictions_are="probs"), open_inputs(name, array)
    Path(name).rename("moved")
    with pytest.raises(InputNotFound, match=rf"^{name}: a worker on .* can't see /.*/{name} .*file system"):
        evaluate_to(spec, inputs, resources=Resources(executor=cluster))
    Path(name).write_bytes(b"\0" * 100)
    with pytest.raises(InputChanged, match=rf"^{name}: a worker on .* sees 100 bytes at /.*, expected \d+"):
        evaluate_to(spec, inputs, resources=Resources(executor=cluster))


def test_a_file_of_a_batch_that_workers_do_not_see_is_named_with_what_to_do(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = []
    for name in ("good", "moved", "other", "later", "missing"):
        np.save(f"{name}.npy", np.full((4, 2), 0.5))
        spec = resolve_spec(predictions_are="probs")
        pairs.append(
            BatchPair(name=name, predictions=f"{name}.npy", targets=f"{name}.npy", spec=spec, size=1)
        )
    Path("missing.npy").unlink()

    def sent(pair: BatchPair) -> BatchPair:
        found = with_files(pair)
        if pair.name == "moved":
            Path("moved.npy").rename("moved")
        elif pair.name == "other":
            Path("new").write_bytes(b"another file")
            Path("new").replace("other.npy")
        elif pair.name == "later":
            Path("new").write_bytes(Path("later.npy").read_bytes())
            Path("new").replace("later.npy")
        return found

    monkeypatch.setattr("kldiv_cli.batch_small.with_files", sent)
    errors = {result.name: str(result.error) for result in run_batch(pairs, cluster)}
    assert errors["good"] == "None"
    assert errors["missing"] == "missing.npy: no such file"
    seen = re.escape(str(tmp_path))
    assert re.match(rf"moved\.npy: a worker on .* can't see {seen}/moved\.npy .*file system", errors["moved"])
    assert re.match(
        rf"other\.npy: a worker on .* sees 12 bytes at {seen}/other\.npy, expected 192", errors["other"]
    )
    assert re.match(
        rf"later\.npy: a worker on .* sees a file written at .* at {seen}/later\.npy, expected one written",
        errors["later"],
    )


def test_external_storage_that_a_worker_would_take_from_elsewhere_is_refused(
    dask: Dask, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.random.default_rng(3).random((50, 10))
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("x", array.shape, array.dtype, external=[("stored.bin", 0, array.nbytes)])[
            ...
        ] = array
    spec = resolve_spec(predictions_are="probs")

    def compute(resources: Resources) -> str:
        inputs = open_inputs("a.h5", array, allow_external=True)
        return repr(evaluate_to(spec, inputs, resources=resources))

    assert compute(Resources(workers=1))
    (dask.directory / "stored.bin").write_bytes(bytes(array.nbytes))
    with pytest.raises(InputNotFound, match=r"stored\.bin is another file than /.*stored\.bin for a worker"):
        compute(Resources(executor=cluster))


# The command line


def kldiv(*arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kldiv_cli", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


COMMANDS = [
    [
        "compute",
        "digits_student_logits.npy",
        "digits_teacher_probs.npy",
        "--log-softmax",
        "-1",
        "--worst",
        "3",
    ],
    ["compare", "digits_student_logits.npy", "digits_student_logits.npy", "--json"],
    ["check", "suite.toml"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_commands_say_the_same(dask: Dask, command: list[str]) -> None:
    plain, there = (kldiv(*command, *more, directory=SAMPLES) for more in ([], ["--scheduler", dask.address]))
    assert without_seconds(there.stdout) == without_seconds(plain.stdout)
    assert (there.stderr, there.returncode) == (plain.stderr, plain.returncode)
    assert there.returncode == 0


def without_seconds(text: str) -> list[str]:
    return [line for line in text.splitlines() if "seconds" not in line]


def test_a_baseline_is_recorded_on_a_cluster(dask: Dask, tmp_path: Path) -> None:
    pair = (str(SAMPLES / "cancer_probs.npy"), str(SAMPLES / "cancer_labels.npy"), "--loss", "bce")
    for name, more in (("a", []), ("b", ["--scheduler", dask.address])):
        done = kldiv("baseline", "record", *pair, "--baseline", str(tmp_path / name), *more)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "2"], "--workers: the threads of a cluster are its own"),
        ([], "--scheduler nonsense: missing port number"),
    ],
)
def test_what_contradicts_a_cluster_is_one_line(more: list[str], message: str) -> None:
    done = kldiv(*COMMANDS[0], "--scheduler", "nonsense", *more, directory=SAMPLES)
    assert done.returncode == 2
    assert done.stderr.startswith(f"kldiv: error: {message}")
    assert done.stderr.count("\n") == 1


def test_without_dask_it_is_said_what_to_install() -> None:
    code = (
        "import sys; sys.modules['distributed'] = None; from kldiv_cli.__main__ import main; "
        f"sys.exit(main({[*COMMANDS[0], '--scheduler', 'a:1']!r}))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=SAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'kldiv-cli[dask]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_dask_is_imported_only_for_a_cluster() -> None:
    code = (
        "import sys; from kldiv_cli.__main__ import main; "
        f"code = main({COMMANDS[0]!r}); sys.exit(code or len({{'dask', 'distributed'}} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=SAMPLES, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def write_huge(path: Path) -> None:
    """An array that takes minutes to be read, and no room on the disk."""
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1000), np.float32))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (1 << 22, 1000)})
        file.truncate(file.tell() + 4 * 1000 * (1 << 22))


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_runs_on_the_cluster(dask: Dask, tmp_path: Path, number: signal.Signals) -> None:
    huge = tmp_path / "huge.npy"
    write_huge(huge)
    command = [sys.executable, "-m", "kldiv_cli", "compute", str(huge), str(huge), "--log-softmax", "-1"]
    process = subprocess.Popen(
        [*command, "--scheduler", dask.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait(lambda: dask.tasks() > 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (128 + number, "", "")
    wait(lambda: dask.tasks() == 0)


@posix
def test_an_interrupted_batch_leaves_the_cluster_to_others_and_keeps_what_was_done(
    dask: Dask, cluster: Cluster, tmp_path: Path
) -> None:
    for part in ("q", "p"):
        (tmp_path / part).mkdir()
        write_huge(tmp_path / part / "huge.npy")
        for number in range(9):
            np.save(tmp_path / part / f"{number}.npy", np.zeros((4, 3), np.float32))
    journal = tmp_path / "run.jsonl"
    command = [sys.executable, "-m", "kldiv_cli", "batch", "q", "p", "--log-softmax", "-1"]
    process = subprocess.Popen(
        [*command, "--targets-are", "logits", "--journal", str(journal), "--scheduler", dask.address],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait(lambda: journal.exists() and journal.read_text().count("\n") == 1 + 9 and dask.tasks() > 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")
    wait(lambda: dask.tasks() == 0)
    assert sorted(cluster.run(range(9), cluster_tasks.doubled)) == list(range(0, 18, 2))
    assert journal.read_text().count('"status":"ok"') == 9


@posix
def test_an_interrupted_script_leaves_no_task_running(dask: Dask, tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    script = (
        "import itertools, pathlib, sys; from functools import partial; import cluster_tasks\n"
        "from kldiv_cli.cluster import connect\n"
        "mark = partial(cluster_tasks.marking, pathlib.Path(sys.argv[2]))\n"
        "with connect(sys.argv[1]) as cluster:\n"
        "    list(cluster.run(itertools.count(), mark))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", script, dask.address, str(marks)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait(lambda: marks.exists() and marks.read_text().count("\n") > 10)
        err = interrupted(process)
    finally:
        process.kill()
    assert err.rstrip().endswith("KeyboardInterrupt")
    wait(lambda: dask.tasks() == 0)


def interrupted(process: subprocess.Popen[str]) -> str:
    """What a script says at its end; an interrupt that Python loses in a callback is sent again."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=10)[1]
    raise AssertionError("it does not end")


def test_a_batch_is_the_same_on_a_cluster(
    dask: Dask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kldiv_cli.batch._LARGE", 50_000)
    rng = np.random.default_rng(11)
    for name in ("out", "ref"):
        (tmp_path / name).mkdir()
    for number in range(40):
        shape = (4000 if number % 20 == 7 else 30, 10)
        np.save(f"out/{number}.npy", rng.standard_normal(shape).astype(np.float32))
        np.save(f"ref/{number}.npy", rng.dirichlet(np.ones(10), shape[0]))
    Path("out/3.npy").write_bytes(b"damaged")
    command = ["batch", "out", "ref", "--log-softmax", "-1", "--format", "jsonl", "--output"]
    lines = []
    for maps, more in (("there", ["--scheduler", dask.address]), ("here", ["--workers", "2"])):
        assert main([*command, f"{maps}/{{pair}}.npy", *more]) == 2
        *pairs, summary = map(json.loads, capsys.readouterr().out.splitlines())
        del summary["summary"]["seconds"]
        lines.append((sorted(pairs, key=lambda record: record["pair"]), summary))
    assert lines[0] == lines[1]
    assert len(lines[0][0]) == 40
    for map_there in Path("there").iterdir():
        assert map_there.read_bytes() == Path("here", map_there.name).read_bytes()
    assert len(list(Path("there").iterdir())) == 39


@posix
def test_a_task_that_kills_its_worker_costs_no_other(tmp_path: Path) -> None:
    told: list[int] = []
    with (
        scheduling(tmp_path, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0") as dask,
        dask.worker(),
        dask.worker(),
        connect(dask.address) as cluster,
    ):
        results = list(
            cluster.run(
                range(12),
                partial(cluster_tasks.dying_at, 5),
                told=told.append,
                failed=lambda task, error: repr(error),
            )
        )
        cluster.abort()
        with pytest.raises(WorkerDied, match="has ended"):
            list(cluster.run(range(3), cluster_tasks.doubled))
    assert sorted(told) == list(range(12))
    (lost,) = [result for result in results if isinstance(result, str)]
    assert "died over the same blocks" in lost
    assert sorted(set(results) - {lost}) == [2 * task for task in range(12) if task != 5]


def test_a_run_that_begins_while_all_is_ended_ends_too(dask: Dask, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(dask.address) as cluster:

        def aborting(*arguments: Any) -> ClusterRun:
            cluster.abort()
            return ClusterRun(*arguments)

        monkeypatch.setattr("kldiv_cli.cluster.ClusterRun", aborting)
        with pytest.raises(WorkerDied, match="has ended"):
            list(cluster.run(range(3), cluster_tasks.doubled))


def test_the_lines_of_the_readme_start_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    lines = [line for line in readme.splitlines() if line.startswith(("dask scheduler ", "dask worker "))]
    assert len(lines) == 2
    monkeypatch.chdir(tmp_path)
    more = (["--host", "127.0.0.1", "--port", "0", "--no-dashboard"], ["--no-dashboard"])
    with contextlib.ExitStack() as stack:
        for line, options in zip(lines, more, strict=True):
            command = [sys.executable, "-m", *line.split(), *options]
            process = stack.enter_context(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            while not is_written(Path("scheduler.json")):
                assert process.poll() is None
                time.sleep(0.05)
        x = np.log(np.full((4, 3), 1 / 3))
        np.save("x.npy", x)
        np.save("y.npy", np.exp(x))
        assert evaluate("x.npy", "y.npy", scheduler="scheduler.json").sum == 0
