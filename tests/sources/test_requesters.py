"""Threads that make requests: what they bring back, and what never waits for them."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from kldiv_cli.sources.requesters import Requesters, answer_of, apart, await_all, awaited
from kldiv_cli.stopping import Abandoned, heed

LONG = 30.0
"""Seconds that no test takes unless it fails."""


class Stuck:
    """Calls that wait until they are let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.ended = 0

    def __call__(self) -> None:
        self.begun.release()
        assert self.let_go.wait(LONG)
        self.ended += 1

    def await_begun(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=LONG)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    call = Stuck()
    yield call
    call.let_go.set()


@pytest.fixture
def requesters() -> Iterator[Requesters]:
    made = Requesters(3)
    yield made
    made.close()


def thread_of(requesters: Requesters) -> threading.Thread:
    return awaited(requesters.submit(threading.current_thread))


def test_a_result_and_an_error_are_those_of_the_function(requesters: Requesters) -> None:
    assert awaited(requesters.submit(divmod, 7, 2)) == (3, 1)
    assert awaited(requesters.submit(int, "11", base=2)) == 3
    for error in (TimeoutError("of a socket"), KeyError("x"), SystemExit(3), KeyboardInterrupt()):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as raised:
            awaited(requesters.submit(fail))
        assert raised.value is error


def test_callers_at_the_same_time_need_no_more_threads_than_they_are() -> None:
    """A thread that takes the next call at once leaves another one idle, which must not be forgotten."""
    shared, used = Requesters(1000), set[threading.Thread]()

    def call() -> None:
        for _ in range(3000):
            used.add(awaited(shared.submit(threading.current_thread)))

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    shared.close()
    # One is free a moment after its result is there, in which another one is started.
    assert len(used) <= 2 * len(callers) + 4


def test_a_thread_is_kept_for_the_next_call_and_ends_when_closed(requesters: Requesters) -> None:
    first = thread_of(requesters)
    assert first.daemon
    for _ in range(50):
        # It is free a moment after its result is there.
        assert len({first, *(thread_of(requesters) for _ in range(10))}) <= 3
    requesters.close()
    first.join(LONG)
    assert not first.is_alive()
    assert thread_of(requesters) is not first


def test_so_many_calls_run_at_once_as_there_are_threads_and_no_more(
    requesters: Requesters, stuck: Stuck
) -> None:
    futures = [requesters.submit(stuck) for _ in range(5)]
    stuck.await_begun(3)
    assert not stuck.begun.acquire(timeout=0.05)
    stuck.let_go.set()
    await_all(futures)
    assert stuck.ended == 5


def test_closing_waits_for_nothing_and_cancels_what_has_not_begun(
    requesters: Requesters, stuck: Stuck
) -> None:
    futures = [requesters.submit(stuck) for _ in range(5)]
    stuck.await_begun(3)
    requesters.close()
    assert [future.cancelled() for future in futures] == [False] * 3 + [True] * 2
    assert awaited(requesters.submit(int)) == 0
    stuck.let_go.set()
    await_all(futures)
    assert stuck.ended == 3


def test_threads_end_with_what_they_belong_to() -> None:
    requesters = Requesters(1)
    thread = thread_of(requesters)
    del requesters
    gc.collect()
    thread.join(LONG)
    assert not thread.is_alive()


def test_an_error_is_raised_once_the_others_have_ended(requesters: Requesters, stuck: Stuck) -> None:
    others = [requesters.submit(stuck) for _ in range(2)]
    stuck.await_begun(2)
    failing = requesters.submit(int, "x")
    never = Future[None]()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            await_all([failing, *others, never])
        except ValueError as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    deadline = time.monotonic() + LONG
    while not never.cancelled():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert not raised
    stuck.let_go.set()
    waiting.join(LONG)
    assert [str(error) for error in raised] == ["invalid literal for int() with base 10: 'x'"]
    assert stuck.ended == 2


def test_only_the_main_thread_has_others_ask_for_it() -> None:
    assert answer_of(threading.current_thread) is not threading.current_thread()
    found: list[bool] = []

    def ask() -> None:
        here = threading.current_thread()
        found.extend((answer_of(threading.current_thread) is here, apart(threading.current_thread) is here))

    other = threading.Thread(target=ask)
    other.start()
    other.join(LONG)
    assert found == [True, False]


def test_what_waits_in_the_main_thread_hears_a_signal() -> None:
    code = """
import os, signal, threading
from kldiv_cli.sources.requesters import answer_of, Requesters, await_all
forever = threading.Event().wait
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
for wait in (lambda: answer_of(forever), lambda: await_all([Requesters(1).submit(forever)] * 2)):
    threading.Timer(0.1, interrupt).start()
    try:
        wait()
    except KeyboardInterrupt:
        print("heard")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=2 * LONG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "heard\nheard\n", "")


def test_a_thread_that_is_told_to_stop_waits_for_no_request(requesters: Requesters, stuck: Stuck) -> None:
    waits: tuple[Callable[[], object], ...] = (
        lambda: answer_of(stuck),
        lambda: awaited(requesters.submit(stuck)),
        lambda: await_all([requesters.submit(stuck)] * 2),
    )
    stopped, given_up = threading.Event(), threading.Semaphore(0)

    def wait(call: Callable[[], object]) -> None:
        heed(stopped)
        with contextlib.suppress(Abandoned):
            call()
            return
        given_up.release()

    threads = [threading.Thread(target=wait, args=(call,), daemon=True) for call in waits]
    for thread in threads:
        thread.start()
    stuck.await_begun(len(waits))
    stopped.set()
    for thread in threads:
        thread.join(LONG)
        assert given_up.acquire(timeout=LONG)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """
import os
from kldiv_cli.sources.requesters import Requesters, apart, awaited
requesters = Requesters(1)
calls = (lambda: apart(os.getpid), lambda: awaited(requesters.submit(os.getpid)))
assert {call() for call in calls} == {os.getpid()}
child = os.fork()
assert {call() for call in calls} == {os.getpid()}
os._exit(0) if child == 0 else None
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=2 * LONG
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_without_another_thread_those_that_are_there_do_it_or_it_is_said(
    requesters: Requesters, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = thread_of(requesters)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    calls: list[Callable[[], threading.Thread]] = [threading.current_thread] * 9
    assert {awaited(future) for future in [requesters.submit(call) for call in calls]} == {thread}
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Requesters(1).submit(int)
