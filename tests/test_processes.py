from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest

from kldiv_cli import compare, evaluate, placement
from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.budget import Resources
from kldiv_cli.errors import InputError, WorkerDied
from kldiv_cli.processes import Processes, _Idle
from kldiv_cli.spec import resolve_spec

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def doubled() -> Callable[[int], int]:
    return lambda task: 2 * task


def of_process() -> Callable[[int], tuple[int, int]]:
    return lambda task: (task, os.getpid())


def slow(seconds: float) -> Callable[[int], int]:
    def work(task: int) -> int:
        time.sleep(seconds)
        return os.getpid()

    return work


def failing() -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 7:
            raise InputError("task 7: is bad")
        return task

    return work


def never_made() -> Callable[[int], int]:
    raise InputError("no worker can be made")


def dying(how: int) -> Callable[[int], int]:
    def work(task: int) -> int:
        if task == 3:
            os.kill(os.getpid(), how)
            time.sleep(30)
        return task

    return work


class Deaf:
    """Is told to end while nothing that it raises can be passed on."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


def deaf() -> Callable[[int], int]:
    def work(task: int) -> int:
        Deaf()
        time.sleep(30)
        return task

    return work


def leaving() -> Callable[[int], int]:
    return lambda task: os._exit(5)


def printing() -> Callable[[int], int]:
    def work(task: int) -> int:
        print("a library's word")
        subprocess.run([sys.executable, "-c", "print('and a child of it')"], check=True)
        return task

    return work


class Unsendable(Exception):
    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)


def unsendable() -> Callable[[int], int]:
    def work(task: int) -> int:
        raise Unsendable("what happened", "there")

    return work


class Counted:
    """A worker that answers how many of its kind there are."""

    alive: ClassVar[weakref.WeakSet[Counted]] = weakref.WeakSet()

    def __init__(self) -> None:
        self.alive.add(self)

    def __call__(self, task: int) -> int:
        return len(self.alive)


def counting() -> Callable[[int], int]:
    return Counted()


class Unreadable:
    def __reduce__(self) -> tuple[object, ...]:
        return _read_in, (os.getpid(),)


def _read_in(pid: int) -> None:
    if os.getpid() != pid:
        raise ValueError("not to be read here")


def of_size() -> Callable[[int], bytes]:
    return bytes


def unreadable() -> Callable[[int], Unreadable]:
    return lambda task: Unreadable()


LowLimit = Callable[[str, int], AbstractContextManager[Callable[[], None]]]


@pytest.fixture
def low_limit() -> LowLimit:
    """Keep this process from taking more for a while, or until what is lent is called."""
    import resource

    @contextmanager
    def limited(name: str, most: int) -> Iterator[Callable[[], None]]:
        kind = getattr(resource, name)
        before = resource.getrlimit(kind)
        put_back = partial(resource.setrlimit, kind, before)
        resource.setrlimit(kind, (most, before[1]))
        try:
            yield put_back
        finally:
            put_back()

    return limited


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(2) as pool:
        yield pool


@pytest.mark.parametrize("tasks", [0, 1, 2, 100])
def test_every_task_yields_its_result_once(processes: Processes, tasks: int) -> None:
    assert sorted(processes.run(range(tasks), doubled)) == [2 * task for task in range(tasks)]


def test_tasks_run_in_other_processes_which_are_used_again(processes: Processes) -> None:
    pids = [{pid for _, pid in processes.run(range(30), of_process)} for _ in range(3)]
    together = set().union(*pids)
    assert os.getpid() not in together
    assert len(together) <= 2


def test_several_threads_run_tasks_at_the_same_time(processes: Processes) -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        results[number] = sorted(processes.run(range(20), doubled))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: list(range(0, 40, 2)) for number in range(4)}


def test_told_is_told_of_every_task(processes: Processes) -> None:
    told: list[int] = []
    list(processes.run(range(20), doubled, told=told.append))
    assert sorted(told) == list(range(20))


def test_an_error_is_raised_where_the_results_are_read_with_its_trace(processes: Processes) -> None:
    with pytest.raises(InputError, match="task 7: is bad") as caught:
        list(processes.run(range(20), failing))
    assert str(caught.value) == "task 7: is bad"
    assert "in work" in "".join(caught.value.__notes__)
    assert sorted(processes.run(range(3), doubled)) == [0, 2, 4]


def test_a_worker_that_can_not_be_made_is_an_error_each_time(processes: Processes) -> None:
    for _ in range(3):
        with pytest.raises(InputError, match="no worker can be made"):
            list(processes.run(range(5), never_made))


def test_an_error_that_can_not_be_sent_is_told_as_text(processes: Processes) -> None:
    with pytest.raises(RuntimeError, match="what happened"):
        list(processes.run(range(1), unsendable))


def test_what_is_printed_there_is_no_answer(processes: Processes, capfd: pytest.CaptureFixture[str]) -> None:
    with Processes(1) as one:
        assert list(one.run(range(3), printing)) == [0, 1, 2]
    assert capfd.readouterr().out == ""


def test_workers_are_let_go_with_their_run() -> None:
    with Processes(1) as one:
        assert [list(one.run(range(3), counting)) for _ in range(3)] == [[1, 1, 1]] * 3


def test_an_answer_that_can_not_be_read_is_an_error_that_costs_other_runs_nothing() -> None:
    with Processes(1) as one:
        runs = [one.run(itertools.count(), doubled) for _ in range(3)]
        begun = [next(run) for run in runs]
        with pytest.raises(ValueError, match="not to be read here"):
            list(one.run(range(1), unreadable))
        for run, first in zip(runs, begun, strict=True):
            assert [first, *itertools.islice(run, 20)] == list(range(0, 42, 2))
            run.close()  # type: ignore[attr-defined]


def test_who_waited_for_a_process_gets_it_before_who_gives_it_back() -> None:
    idle, order = _Idle(1), []

    def wait() -> None:
        process = idle.get()
        order.append("who waited")
        idle.put(process)

    process = idle.get()
    waiting = threading.Thread(target=wait)
    waiting.start()
    while not idle._waiting:
        time.sleep(0.001)
    idle.put(process)
    idle.get()
    order.append("who gave it back")
    waiting.join()
    assert order == ["who waited", "who gave it back"]


@posix
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_a_process_that_dies_is_named_with_its_signal_and_replaced(name: str) -> None:
    with Processes(2) as pool:
        with pytest.raises(WorkerDied, match=name):
            list(pool.run(range(10), partial(dying, getattr(signal, name))))
        assert sorted(pool.run(range(10), doubled)) == list(range(0, 20, 2))


@posix
def test_a_dismissal_lost_in_a_callback_comes_again_and_nothing_is_said_of_the_loss(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Processes(1) as pool, pytest.raises(WorkerDied, match="SIGTERM"):
        list(pool.run(range(1), deaf))
    assert capfd.readouterr().err == ""


def test_a_process_that_leaves_is_named_with_its_exit_code() -> None:
    with Processes(1) as pool, pytest.raises(WorkerDied, match="exit code 5"):
        list(pool.run(range(1), leaving))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_an_interpreter_that_can_not_be_started_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    with Processes(2) as pool:
        monkeypatch.setattr(sys, "executable", str(python))
        for said in ("No such file or directory", "Permission denied"):
            line = f"a worker process can't be started: {python}: {said}; see that this interpreter"
            with pytest.raises(WorkerDied, match=f"^{re.escape(line)}"):
                list(pool.run(range(4), doubled))
            python.touch(mode=0o600)
        monkeypatch.undo()
        assert sorted(pool.run(range(4), doubled)) == [0, 2, 4, 6]


@posix
def test_where_there_is_no_room_for_a_process_fewer_are_advised(low_limit: LowLimit) -> None:
    with (
        Processes(1) as pool,
        low_limit("RLIMIT_NOFILE", 3),
        pytest.raises(WorkerDied, match=r"can't be started: Too many open files; take fewer --workers$"),
    ):
        list(pool.run(range(1), doubled))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="limits of Linux")
def test_an_answer_that_there_is_no_memory_for_costs_no_other_task(low_limit: LowLimit) -> None:
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    with Processes(1) as one:
        assert list(one.run([0], of_size)) == [b""]
        with low_limit("RLIMIT_AS", taken + (64 << 20)) as put_back:

            def failed(task: int, error: Exception) -> bytes:
                put_back()
                return repr(error).encode()

            results = list(one.run([1, 128 << 20, 2], of_size, failed=failed))
    assert results == [bytes(1), b"MemoryError()", bytes(2)]


def test_no_process_is_left_behind() -> None:
    with Processes(2) as pool:
        pids = {pid for _, pid in pool.run(range(20), of_process)}
        assert all(map(is_running, pids))
    assert not any(map(is_running, pids))


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_the_tasks_under_way() -> None:
    start = time.monotonic()
    threading.Timer(1.0, lambda: signal.raise_signal(signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), Processes(2) as pool:
        list(pool.run(range(10), partial(slow, 60)))
    assert time.monotonic() - start < 30


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    # Without a guard for its main part, as scripts are.
    script.write_text(
        "import os, signal, sys\n"
        "from kldiv_cli.processes import Processes\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "from tests.test_processes import of_process\n"
        "pool = Processes(2)\n"
        "print(*{pid for _, pid in pool.run(range(20), of_process)}, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, script, root], capture_output=True, text=True, check=False)
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids, done.stderr
    end = time.monotonic() + 20
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def test_what_is_no_text_among_the_places_of_modules_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [Path(__file__).parent, *sys.path])
    with Processes(1) as pool:
        assert len(list(pool.run(range(3), partial(slow, 0)))) == 3


# Jobs


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunked and compressed, of some 100 blocks."""
    directory = tmp_path_factory.mktemp("arrays")
    rng = np.random.default_rng(5)
    shape = (300, 40, 50)
    logits = rng.standard_normal(shape).astype(np.float32)
    probs = rng.random(shape)
    probs /= probs.sum(axis=-1, keepdims=True)
    mask = rng.random(shape) < 0.7
    mask[100:160] = False
    labels = rng.integers(0, 50, shape[:2])
    with h5py.File(directory / "a.h5", "w") as file:
        for name, array in (
            ("logits", logits),
            ("other", logits + np.float32(0.1)),
            ("probs", probs),
            ("mask", mask),
            ("rows", mask[..., 0]),
            ("labels", labels),
        ):
            chunks = (7, 11, 50)[: array.ndim]
            file.create_dataset(name, data=array, chunks=chunks, compression="gzip", compression_opts=1)
    return directory / "a.h5"


OPTIONS = [
    {"log_softmax": -1},
    {"log_softmax": 0, "mask": True},
    {"log_softmax": 1, "worst": 7, "blocks_of": 10, "by_target": True, "mask": True},
    {"losses": ("kl", "bce"), "log_softmax": -1, "top1": True, "ignore_value": 0.5},
    {"losses": ("bce",), "predictions_are": "logits", "mask": True},
]


@pytest.mark.parametrize("few", [True, False], ids=["kept", "sketched"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_results_are_those_of_threads(
    processes: Processes, arrays: Path, options: dict[str, object], few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:
        monkeypatch.setattr("kldiv_cli.evaluation.LIMIT", 1000)
    spec = resolve_spec(**options)  # type: ignore[arg-type]
    files = {"mask": f"{arrays}::mask"} if spec.mask else {}

    def compute(resources: Resources) -> str:
        inputs = open_inputs(f"{arrays}::logits", f"{arrays}::probs", **files)
        return repr(evaluate_to(spec, inputs, resources=resources, totals=True, sha256=True))

    assert compute(Resources(executor=processes)) == compute(Resources(workers=2))


@pytest.mark.parametrize("axis", [0, 1])
def test_windows_of_huge_distributions_are_those_of_threads(
    processes: Processes, arrays: Path, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("blocks", "kernels", "pieces", "segments", "budget"):
        monkeypatch.setattr(f"kldiv_cli.{module}.SEGMENT", 4, raising=False)
    monkeypatch.setattr("kldiv_cli.budget._SMALLEST_BLOCK", 16)
    monkeypatch.setattr("kldiv_cli.budget._LARGEST_BLOCK", 16)
    spec = resolve_spec(log_softmax=axis, predictions_are="logits")
    results = []
    for resources in (Resources(workers=1), Resources(executor=InPickles())):
        inputs = open_inputs(f"{arrays}::logits[:20,:30,:3]", f"{arrays}::probs[:20,:30,:3]")
        results.append(repr(evaluate_to(spec, inputs, resources=resources)))
    assert results[0] == results[1]


class InPickles:
    """An executor that shares nothing with what it runs, in this process."""

    workers = 1
    shared = False
    here = True

    def run(self, tasks, make_worker, *, merge=None, told=None, failed=None):  # type: ignore[no-untyped-def]
        import pickle

        work = pickle.loads(pickle.dumps(make_worker))()
        results = [pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(task))))) for task in tasks]
        while merge is not None and len(results) > 1:
            results.append(merge(results.pop(0), results.pop(0)))
        yield from results


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
def test_results_that_are_merged_elsewhere_are_the_same(arrays: Path, options: dict[str, object]) -> None:
    spec = resolve_spec(**options)  # type: ignore[arg-type]
    files = {"mask": f"{arrays}::mask"} if spec.mask else {}
    results = []
    for resources in (Resources(workers=1), Resources(executor=InPickles())):
        inputs = open_inputs(f"{arrays}::logits", f"{arrays}::probs", **files)
        results.append(repr(evaluate_to(spec, inputs, resources=resources, totals=True)))
    assert results[0] == results[1]


@pytest.mark.parametrize("output", ["output", "distributions"])
def test_maps_are_those_of_threads(processes: Processes, arrays: Path, tmp_path: Path, output: str) -> None:
    spec = resolve_spec(log_softmax=-1)
    for name, resources in (("a", Resources(executor=processes)), ("b", Resources(workers=1))):
        inputs = open_inputs(f"{arrays}::logits", f"{arrays}::probs")
        evaluate_to(spec, inputs, resources=resources, **{output: str(tmp_path / f"{name}.npy")})  # type: ignore[arg-type]
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_large_compressed_inputs_are_read_by_processes_and_small_ones_are_not(
    arrays: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Counted(Processes):
        def __init__(self, workers: int) -> None:
            started.append(workers)
            super().__init__(workers)

    monkeypatch.setattr("kldiv_cli.processes.Processes", Counted)
    a, b = f"{arrays}::logits", f"{arrays}::probs"
    plain = evaluate(a, b, log_softmax=-1, workers=2)
    compared = compare(a, f"{arrays}::other", labels=f"{arrays}::labels", workers=2, worst=3)
    assert started == []
    monkeypatch.setattr(placement, "_WORTH_PROCESSES", 1 << 20)
    assert repr(evaluate(a, b, log_softmax=-1, workers=2)) == repr(plain)
    again = compare(a, f"{arrays}::other", labels=f"{arrays}::labels", workers=2, worst=3)
    assert repr(again) == repr(compared)
    assert started == [2, 2]
    evaluate(a, b, log_softmax=-1, workers=1)
    evaluate(np.zeros((300, 40, 50)), b, log_softmax=-1, workers=2)
    assert started == [2, 2]


def test_an_input_that_is_damaged_is_told_as_it_is_of_threads(
    processes: Processes, arrays: Path, tmp_path: Path
) -> None:
    with h5py.File(arrays) as file:
        chunk = file["logits"].id.get_chunk_info(100)
    contents = bytearray(arrays.read_bytes())
    contents[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    damaged = tmp_path / "damaged.h5"
    damaged.write_bytes(contents)
    messages = []
    for resources in (Resources(executor=processes), Resources(workers=1)):
        inputs = open_inputs(f"{damaged}::logits", f"{damaged}::probs")
        with pytest.raises(InputError) as caught:
            evaluate_to(resolve_spec(log_softmax=-1), inputs, resources=resources)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
