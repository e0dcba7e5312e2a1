"""What was written down is there after any death of its writer, and nothing else is ever taken for it."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kldiv_cli.api import evaluate_to, open_inputs
from kldiv_cli.errors import FormatError, OutputError
from kldiv_cli.journal import JOURNAL_SCHEMA, Journal, open_journal, read_journal
from kldiv_cli.journal_lines import result_from
from kldiv_cli.pair_result import PairResult, result_of
from kldiv_cli.pair_stamps import InputStamp, stamp_of
from kldiv_cli.spec import resolve_spec

posix = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and permissions of POSIX")

HEADER = b'{"schema": "kldiv-journal/1"}\n'
STAMP = stamp_of({"predictions": InputStamp("q.npy", 10, 20)}, {"axis": -1, "loss": ["kl"]})
OTHER = stamp_of({"predictions": InputStamp("q.npy", 10, 21)}, {"axis": -1, "loss": ["kl"]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batch.jsonl"


def computed(name: str, seed: int = 0) -> PairResult:
    """A real pair with both losses and everything that can be asked for; one of its values is inf."""
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(4), 3)
    logits = rng.standard_normal((3, 4))
    logits[0, 0] = -math.inf
    spec = resolve_spec(losses=("kl", "bce"), log_softmax=-1, by_target=True, top1=True, worst=2)
    evaluations = evaluate_to(spec, open_inputs(logits, targets), totals=True)
    result = result_of(name, ("q.npy", "p.npy"), evaluations, bytes=96, seconds=0.25)
    return replace(result, records=tuple(json.loads(json.dumps(result.records))))


def small(name: str, seconds: float = 0.0) -> PairResult:
    return PairResult(name=name, predictions="q", targets="p", bytes=1, seconds=seconds)


def failed(name: str) -> PairResult:
    return PairResult(name=name, predictions="q", targets="p", error="q: no such file")


def written(path: Path, *results: PairResult) -> bytes:
    with open_journal(str(path)) as journal:
        for result in results:
            journal.add(result, STAMP)
    return path.read_bytes()


def finished(path: Path, names: list[str]) -> list[str]:
    with open_journal(str(path)) as journal:
        return [name for name in names if journal.finished(name, STAMP) is not None]


# What is kept


def test_a_pair_is_read_back_to_the_bit(path: Path) -> None:
    pair = computed("layer0/é\udcff")
    written(path, pair)
    with open_journal(str(path)) as journal:
        found = journal.finished(pair.name, STAMP)
    assert found is not None
    assert json.dumps(found.records) == json.dumps(pair.records)
    assert found == pair


def test_what_was_added_is_found_in_the_same_run_too(path: Path) -> None:
    with open_journal(str(path)) as journal:
        assert journal.finished("a", STAMP) is None
        journal.add(small("a"), STAMP)
        journal.add(computed("b"), STAMP)
        assert journal.finished("a", STAMP) == small("a")
        assert journal.finished("b", STAMP) == computed("b")


def test_a_journal_is_json_lines_with_its_schema_first(path: Path) -> None:
    first, *others = written(path, computed("a"), failed("b")).decode("ascii").splitlines()
    assert json.loads(first) == {"schema": JOURNAL_SCHEMA}
    a, b = map(json.loads, others)
    assert list(a) == ["crc32", "entry", "records", "totals"]
    assert (a["entry"]["pair"], a["entry"]["status"], a["entry"]["stamp"]) == ("a", "ok", STAMP)
    assert (b["entry"]["status"], b["entry"]["error"]) == ("error", "q: no such file")


def test_under_another_stamp_a_pair_is_not_finished(path: Path) -> None:
    written(path, small("a"))
    with open_journal(str(path)) as journal:
        assert journal.finished("a", OTHER) is None
        assert journal.finished("a", STAMP) is not None
        assert journal.finished("b", STAMP) is None
    assert journal.damaged == 0


def test_the_order_of_settings_and_tuples_for_lists_make_no_other_stamp(path: Path) -> None:
    written(path, small("a"))
    same = stamp_of({"predictions": InputStamp("q.npy", 10, 20)}, {"loss": ("kl",), "axis": -1})
    with open_journal(str(path)) as journal:
        assert journal.finished("a", same) is not None


def test_a_later_line_replaces_an_earlier_one_of_its_pair(path: Path) -> None:
    written(path, small("a", 1.0), small("b", 1.0), small("a", 2.0), failed("b"), failed("c"), small("c"))
    with open_journal(str(path)) as journal:
        found = journal.finished("a", STAMP)
        assert found is not None
        assert found.seconds == 2.0
        assert journal.finished("b", STAMP) is None
        assert journal.finished("c", STAMP) is not None


def test_a_pair_that_failed_is_not_finished(path: Path) -> None:
    written(path, failed("a"))
    assert finished(path, ["a"]) == []


def test_a_second_run_adds_to_what_the_first_wrote(path: Path) -> None:
    first = written(path, small("a"))
    assert written(path, small("b")).startswith(first)
    assert finished(path, ["a", "b"]) == ["a", "b"]


# Torn ends and damaged lines


def test_cut_at_any_byte_a_journal_opens_and_has_every_whole_line(path: Path) -> None:
    names = ["a", "b", "c"]
    whole = written(path, *map(small, names))
    ends = [k for k, byte in enumerate(whole) if byte == ord("\n")][1:]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        expected = [name for name, end in zip(names, ends, strict=True) if end <= cut]
        with open_journal(str(path)) as journal:
            found = [name for name in names if journal.finished(name, STAMP)]
            assert (found, journal.damaged, journal.notes) == (expected, 0, ())
        mended = path.read_bytes()
        assert mended == b"".join(whole.splitlines(keepends=True)[: len(expected) + 1])
        if cut % 25 == 0:
            assert written(path, small("d")).startswith(mended)
            assert finished(path, [*names, "d"]) == [*expected, "d"]


def test_what_a_power_cut_left_behind_the_last_line_is_dropped(path: Path) -> None:
    whole = written(path, small("a"))
    for tail in (b"\0" * 5000, b'{"crc32":"' + b"\0" * 100, b"\xff\xfe"):
        path.write_bytes(whole + tail)
        assert finished(path, ["a"]) == ["a"]
        assert path.read_bytes() == whole


def test_a_damaged_line_in_the_middle_is_skipped_and_counted_and_stays(path: Path) -> None:
    whole = written(path, computed("a"), computed("b", 1), small("c"))
    start = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for place in (start + 3, start + 12, start + 40, whole.index(b'"totals"', start) + 30):
        path.write_bytes(whole[:place] + b"#" + whole[place + 1 :])
        before = path.read_bytes()
        with open_journal(str(path)) as journal:
            assert journal.damaged == 1
            assert journal.notes == (
                f"{path}: 1 damaged line skipped; a pair that no other line has is computed again",
            )
            assert [journal.finished(n, STAMP) is not None for n in "abc"] == [True, False, True]
        assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"\0\0", b"{}", b'"a"', b"[" * 100_000, b'{"crc32":"00000000",}'])
def test_any_line_that_was_not_written_by_a_journal_is_a_damaged_one(path: Path, line: bytes) -> None:
    first, rest = written(path, small("a"), small("b")).split(b"\n", 1)
    path.write_bytes(first + b"\n" + line + b"\n" + rest)
    with open_journal(str(path)) as journal:
        assert journal.damaged == 1
    assert finished(path, ["a", "b"]) == ["a", "b"]


def test_a_whole_line_that_holds_no_result_makes_its_pair_unfinished(path: Path) -> None:
    import zlib

    whole = written(path, computed("a"), small("b"))
    header, a, b = whole.splitlines(keepends=True)
    for old, new in ((b'"batch":3', b'"batch":-3'), (b'"records":[', b'"other":['), (b'"bytes":96,', b"")):
        body = a[20:-1].replace(old, new)
        path.write_bytes(header + b'{"crc32":"%08x",' % zlib.crc32(body) + body + b"\n" + b)
        with open_journal(str(path)) as journal:
            assert journal.finished("a", STAMP) is None
            assert journal.damaged == 1
            assert journal.finished("b", STAMP) is not None


def test_a_line_that_is_damaged_while_the_journal_is_open_is_not_believed(path: Path) -> None:
    whole = written(path, computed("a"))
    with open_journal(str(path)) as journal:
        with open(path, "r+b") as file:
            file.seek(len(whole) - 9)
            file.write(b"###")
        assert journal.finished("a", STAMP) is None
        assert journal.damaged == 1


@pytest.mark.parametrize("ended", [True, False])
def test_a_line_longer_than_any_that_is_written_is_damaged_or_the_torn_end(
    path: Path, ended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    header, a, b = written(path, small("a"), small("b")).splitlines(keepends=True)
    monkeypatch.setattr("kldiv_cli.line_file._LONGEST", 10_000)
    endless = b"\0" * 5_000_000
    path.write_bytes(header + a + (endless + b"\n" + b if ended else endless))
    with open_journal(str(path)) as journal:
        assert journal.damaged == ended
        assert [journal.finished(n, STAMP) is not None for n in "ab"] == [True, ended]
    assert path.stat().st_size == len(header + a) + (len(endless) + 1 + len(b) if ended else 0)


# Only looked at


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_journal_that_is_looked_at_is_left_as_it_is(path: Path, cut: int) -> None:
    whole = written(path, small("a"), small("b"))
    path.write_bytes(whole[:-cut])
    before = path.stat()
    reader = read_journal(str(path))
    assert reader is not None
    with reader:
        assert [reader.finished(n, STAMP) is not None for n in "ab"] == [True, cut == 1]
        assert reader.notes == ()
    assert path.read_bytes() == whole[:-cut]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("size", [0, 1, len(HEADER) - 1, len(HEADER)])
def test_an_empty_journal_is_looked_at_and_stays_empty(path: Path, size: int) -> None:
    path.write_bytes(HEADER[:size])
    reader = read_journal(str(path))
    assert reader is not None
    with reader:
        assert reader.finished("a", STAMP) is None
    assert path.read_bytes() == HEADER[:size]


def test_what_is_no_journal_is_refused_where_it_is_only_looked_at(path: Path) -> None:
    assert read_journal(str(path)) is None
    assert not path.exists()
    path.write_text("text\n")
    with pytest.raises(FormatError, match="no journal"):
        read_journal(str(path))
    with pytest.raises(OutputError, match=r"is the input .*; choose another name"):
        read_journal(str(path), [str(path)])
    with pytest.raises(OutputError, match="no directory"):
        read_journal(str(path.parent / "missing" / "a"))


def test_a_journal_that_is_being_written_to_can_be_looked_at(path: Path) -> None:
    with open_journal(str(path)) as journal:
        journal.add(small("a"), STAMP)
        reader = read_journal(str(path))
        assert reader is not None
        with reader:
            journal.add(small("b"), STAMP)
            assert [reader.finished(n, STAMP) is not None for n in "ab"] == [True, False]
    assert finished(path, ["a", "b"]) == ["a", "b"]


# What is no journal


@pytest.mark.parametrize(
    "contents",
    [
        b"\x93NUMPY\x01\x00v\x00",
        b"\0" * 64,
        b"{}\n",
        b"[]\n",
        b"[" * 4000 + b"\n",
        b'{"schema": 1}\n',
        b'{"schema": "kldiv/1"}\n',
        b'{"schema": "kldiv-journal/x"}\n',
        b"\n",
        b"text",
        b"x" * 10_000,
    ],
)
def test_a_file_that_is_no_journal_is_refused_as_it_was(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)
    with pytest.raises(FormatError, match=r"no journal: begins with .*; choose another file$"):
        open_journal(str(path))
    assert path.read_bytes() == contents


def test_a_newer_journal_is_refused_as_it_was(path: Path) -> None:
    contents = b'{"schema": "kldiv-journal/2"}\n{"torn'
    path.write_bytes(contents)
    with pytest.raises(FormatError, match=r"'kldiv-journal/2', and this kldiv reads 'kldiv-journal/1'"):
        open_journal(str(path))
    assert path.read_bytes() == contents


def test_places_that_hold_no_journal_are_refused(path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory"):
        open_journal(str(path.parent))
    with pytest.raises(OutputError, match="no directory"):
        open_journal(str(path.parent / "missing" / "a"))
    with pytest.raises(OutputError, match="null"):
        open_journal("a\0b")


@posix
def test_a_pipe_is_refused_without_waiting_for_its_other_end(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OutputError, match="not a regular file"):
        open_journal(str(path))


def test_an_input_is_never_written_to(path: Path) -> None:
    written(path, small("a"))
    with pytest.raises(OutputError, match=r"is the input .*; choose another name"):
        open_journal(str(path), [str(path.parent / "missing"), f"{path.parent}/./{path.name}"])


@posix
def test_a_new_journal_has_the_permissions_that_the_umask_leaves(path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert written(path) == HEADER
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_followed_to_the_journal(path: Path) -> None:
    link = path.parent / "link"
    try:
        link.symlink_to(path)
    except OSError:
        pytest.skip("needs symbolic links")
    written(link, small("a"))
    assert link.is_symlink()
    assert finished(path, ["a"]) == ["a"]


# Other processes

WRITER = """
import json, sys
from kldiv_cli.journal import open_journal
from kldiv_cli.pair_result import PairResult
path, stamp, first, then = sys.argv[1:]
with open_journal(path) as journal:
    print("open", flush=True)
    for k in range(int(first), 1_000_000):
        journal.add(PairResult(name=f"pair{k}", predictions="q", targets="p", bytes=1), json.loads(stamp))
        print(k, flush=True)
        if then == "wait":
            sys.stdin.read()
"""


def writer(path: Path, first: int = 0, then: str = "go") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WRITER, str(path), json.dumps(STAMP), str(first), then]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_while_another_process_has_it_a_journal_is_refused_and_named(path: Path) -> None:
    process = writer(path, then="wait")
    try:
        with pytest.raises(OutputError, match=r"batch.jsonl: another process is writing to it; wait until"):
            open_journal(str(path))
    finally:
        process.kill()
        process.communicate()
    with open_journal(str(path)) as journal, pytest.raises(OutputError, match="another process"):
        open_journal(str(path))
    assert journal.notes == ()


@posix
def test_nothing_that_was_added_is_lost_or_doubled_by_kills(path: Path) -> None:
    moments, said = random.Random(0), 0
    for _ in range(3):
        process = writer(path, said)
        time.sleep(moments.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        told, _ = process.communicate()
        whole = told[: told.rfind("\n") + 1].split()
        said = max([said, *(int(k) + 1 for k in whole)])
        lines = finished(path, [f"pair{k}" for k in range(said + 1)])
        assert lines[:said] == [f"pair{k}" for k in range(said)]
        said = len(lines)
    written_lines = path.read_bytes().splitlines()[1:]
    assert [json.loads(line)["entry"]["pair"] for line in written_lines] == [f"pair{k}" for k in range(said)]
    assert said > 10


@posix
def test_a_child_that_outlives_a_killed_parent_does_not_keep_the_lock(path: Path) -> None:
    script = f"""
import os, signal, sys
from kldiv_cli.journal import open_journal
journal = open_journal({str(path)!r})
parent = os.getpid()
if os.fork() == 0:
    os.kill(parent, signal.SIGKILL)
    print("alive", flush=True)
    sys.stdin.read()
    os._exit(0)
os.wait()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "alive\n"
    assert process.wait(10) == -signal.SIGKILL
    open_journal(str(path)).close()
    process.communicate("")


# A full disk


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 64 KiB: what a full disk or a quota does, without one."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("small_files")
def test_a_line_that_does_not_fit_is_an_error_and_what_was_there_stays(path: Path) -> None:
    names: list[str] = []
    with open_journal(str(path)) as journal:

        def fill() -> None:
            while True:
                journal.add(small(f"pair{len(names)}"), STAMP)
                names.append(f"pair{len(names)}")

        with pytest.raises(
            OutputError,
            match=r"batch.jsonl: File too large, what was written there before is kept; make room",
        ):
            fill()
        assert path.stat().st_size == 1 << 16
    assert finished(path, [*names, f"pair{len(names)}"]) == names
    assert path.read_bytes().endswith(b"\n")


def test_a_signal_behind_a_whole_line_damages_none(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def signalled(descriptor: int, contents: Any) -> int:
        write(descriptor, contents)
        raise KeyboardInterrupt

    with open_journal(str(path)) as journal:
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", signalled)
            with pytest.raises(KeyboardInterrupt):
                journal.add(small("a"), STAMP)
        journal.add(small("b"), STAMP)
    with open_journal(str(path)) as journal:
        assert journal.notes == ()
        assert [journal.finished(n, STAMP) is not None for n in "ab"] == [True, True]


def test_a_line_after_one_that_failed_begins_on_a_line_of_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.write, []

    def full(descriptor: int, contents: Any) -> int:
        calls.append(len(contents))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(descriptor, contents[:50] if len(calls) == 1 else contents)

    with open_journal(str(path)) as journal:
        journal.add(small("a"), STAMP)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(OutputError, match="No space left on device"):
                journal.add(small("b"), STAMP)
        journal.add(small("c"), STAMP)
        assert journal.finished("c", STAMP) is not None
    with open_journal(str(path)) as journal:
        assert journal.damaged == 1
        assert [journal.finished(n, STAMP) is not None for n in "abc"] == [True, False, True]


def test_where_there_are_no_locks_that_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kldiv_cli.line_file.lock", lambda descriptor: False)
    with open_journal(str(path)) as journal:
        assert journal.notes == (
            f"{path}: this file system has no locks; let no other run write to it meanwhile",
        )


# What it takes


def test_of_many_lines_only_that_of_a_pair_that_is_asked_for_is_read_in_full(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = computed("pair")
    with open_journal(str(path)) as journal:
        journal.add(pair, STAMP)
    header, line = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(header + line * 10_000)
    read: list[bytes] = []

    def result_read(line: bytes) -> PairResult:
        read.append(line)
        return result_from(line)

    monkeypatch.setattr("kldiv_cli.journal.result_from", result_read)
    with open_journal(str(path)) as journal:
        assert journal.finished("pair", STAMP) == pair
    assert len(read) == 1


def test_a_closed_journal_may_be_closed_again(path: Path) -> None:
    journal: Journal = open_journal(str(path))
    journal.close()
    journal.close()


# What is begun


def test_files_that_were_begun_are_known_to_later_runs(tmp_path: Path) -> None:
    path = str(tmp_path / "j")
    with open_journal(path) as journal:
        journal.begin("a", ["m/a.npy", "d/a.npy"])
        assert journal.begun("a") == {"m/a.npy", "d/a.npy"}
        journal.begin(None, ["r.csv"])
    with open_journal(path) as journal:
        assert journal.damaged == 0
        assert journal.begun("a") == {"m/a.npy", "d/a.npy"}
        assert journal.begun("b") == set()
        assert journal.begun(None) == {"r.csv"}, "a file of the run itself"


def test_a_pair_that_is_begun_again_is_no_longer_finished(tmp_path: Path) -> None:
    path, result = str(tmp_path / "j"), computed("a")
    with open_journal(path) as journal:
        journal.begin("a", ["m/a.npy"])
        journal.add(result, {})
        assert journal.finished("a", {}) is not None
        assert journal.begun("a") == {"m/a.npy"}, "what is finished was begun"
        assert journal.has_result("a")
        journal.begin("a", ["m/a.npy"])
        assert journal.finished("a", {}) is None
        assert not journal.has_result("a")
    with open_journal(path) as journal:
        assert journal.finished("a", {}) is None


@pytest.mark.parametrize("outputs", [None, "m/a.npy", [1]])
def test_a_beginning_of_what_is_no_list_of_files_is_damaged(tmp_path: Path, outputs: object) -> None:
    path = str(tmp_path / "j")
    with open_journal(path) as journal:
        journal._append({"pair": "a", "status": "begun", "stamp": None, "outputs": ["m/a.npy"]})
    contents = (tmp_path / "j").read_bytes().splitlines()[1]
    body = contents.replace(b'["m/a.npy"]', json.dumps(outputs).encode())[len(b'{"crc32":"00000000",') :]
    line = b'{"crc32":"%08x",' % zlib.crc32(body) + body + b"\n"
    with open(path, "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(line)
    with open_journal(path) as journal:
        assert journal.damaged == 1
