"""What `tests/test_sinks.py` tests of maps, for any file: where it may go, and that it gets there whole."""

from __future__ import annotations

import errno
import itertools
import os
import re
import stat
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from kldiv_cli.api import evaluate
from kldiv_cli.atomic import (
    check_place,
    commit_all,
    explained,
    new_temporary,
    publish,
    remove_temporary,
    remove_unfinished,
)
from kldiv_cli.errors import OutputError
from kldiv_cli.text_sinks import TextFile, write_text

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kldiv.json"


# Where a file may go


@pytest.mark.parametrize("force", [False, True])
def test_a_new_file_may_go_into_a_directory_that_is_there(path: Path, force: bool) -> None:
    check_place("new", path, [], force=force)
    assert list(path.parent.iterdir()) == []


def test_a_file_that_is_there_is_replaced_only_by_force(path: Path) -> None:
    path.touch()
    check_place("old", path, [], force=True)
    with pytest.raises(OutputError, match=r"^old: exists; overwrite it with --force$"):
        check_place("old", path, [], force=False)


def test_an_input_is_never_replaced_by_whatever_name(path: Path, tmp_path: Path) -> None:
    path.touch()
    os.link(path, tmp_path / "other")
    for name in (str(path), f"{tmp_path}/../{tmp_path.name}/kldiv.json", str(tmp_path / "other")):
        with pytest.raises(OutputError, match=r"is the input .*; choose another name"):
            check_place("b", path, ["missing", "no\0name", name], force=True)


def test_a_directory_and_a_missing_one_are_no_places(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a directory, expected a file name; name a file in it"):
        check_place("b", tmp_path, [], force=True)
    with pytest.raises(OutputError, match=r"no directory .*missing; create it first"):
        check_place("b", tmp_path / "missing" / "b", [], force=True)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        check_place("b", tmp_path / "file" / "b", [], force=True)


@posix
def test_a_pipe_is_no_place(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OutputError, match="is not a regular file, expected one; choose another name"):
        check_place("b", path, [], force=True)


def test_a_name_that_is_too_long_for_a_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        OutputError, match=r"^\S+: File name too long, nothing was written there; choose a shorter name$"
    ):
        check_place("b", tmp_path / ("x" * 5000), [], force=True)


# How it gets there


def test_a_file_gets_its_name_in_one_step_and_the_temporary_one_is_gone(path: Path) -> None:
    path.write_text("old")
    temporary = new_temporary(path)
    assert temporary.parent == path.parent
    temporary.write_text("new")
    assert path.read_text() == "old"
    publish(temporary, path, force=True)
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_the_longest_name_that_a_file_can_have_has_a_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120 + ".json")
    temporary = new_temporary(path)
    publish(temporary, path, force=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("linked", [True, False])
def test_without_force_a_file_that_came_meanwhile_stays(
    path: Path, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without links there is no way to tell but to look first, which `check_place` does."""

    def no_links(*arguments: Any) -> None:
        raise OSError(errno.EPERM, "no links")

    temporary = new_temporary(path)
    temporary.write_text("new")
    if linked:
        path.write_text("another's")
        with pytest.raises(OutputError, match="exists by now"):
            publish(temporary, path, force=False)
        assert path.read_text() == "another's"
    else:
        monkeypatch.setattr("os.link", no_links)
        publish(temporary, path, force=False)
        assert path.read_text() == "new"


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_the_permissions_of_the_old_file_are_kept(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)
    publish(new_temporary(path), path, force=True)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(path: Path, umask: int, force: bool) -> None:
    before = os.umask(umask)
    try:
        publish(new_temporary(path), path, force=force)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@posix
def test_nobody_else_may_read_what_is_to_replace_a_file_before_it_has_its_permissions(path: Path) -> None:
    path.touch(0o640)
    assert stat.S_IMODE(new_temporary(path).stat().st_mode) == 0o600


@posix
def test_the_umask_of_the_process_which_threads_share_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "umask")
    publish(new_temporary(path), path, force=False)
    assert path.exists()


@posix
def test_a_directory_that_cannot_be_opened_or_synced_holds_the_file_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise PermissionError(errno.EACCES, "not to be read")

    temporary = new_temporary(path)
    monkeypatch.setattr("os.open", refuse)
    publish(temporary, path, force=True)
    assert path.exists()


# What a signal leaves


class Signalled(BaseException):
    """What a handler of signals raises, at whatever line the process is."""


class At:
    """Raises `Signalled` before so many lines of the modules that write."""

    def __init__(self, lines: int) -> None:
        self.lines = lines

    def __call__(self, frame: FrameType, event: str, argument: object) -> At | None:
        if not frame.f_code.co_filename.endswith(("atomic.py", "sinks.py", "api.py")):
            return None
        if event == "line":
            self.lines -= 1
            if self.lines < 0:
                raise Signalled
        return self


def write_map(path: Path) -> None:
    evaluate([[0.5]], [[0.5]], output=path)


def write_map_to_hdf5(path: Path) -> None:
    evaluate([[0.5]], [[0.5]], output=path.with_suffix(".h5"))


def write_report(path: Path) -> None:
    write_text(path, "text", force=True)


def is_signalled(lines: int, work: Callable[[], None]) -> bool:
    """Whether work takes more lines than that.

    In a thread of its own, for Python 3.11 forgets to leave a handler of errors that a trace is raised in.
    """

    def attempt() -> bool:
        sys.settrace(At(lines))
        try:
            work()
        except Signalled:
            return True
        finally:
            sys.settrace(None)
        return False

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(attempt).result()


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("write", [write_map, write_map_to_hdf5, write_report])
def test_a_signal_at_any_line_leaves_nothing_unfinished(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    """Between two lines a file may be there that nobody has in hand."""
    write(tmp_path / "map.npy")
    written = set(tmp_path.iterdir())
    assert len(written) == 1
    orphans = False
    for lines in itertools.count():
        for path in written:
            path.unlink(missing_ok=True)
        if not is_signalled(lines, partial(write, tmp_path / "map.npy")):
            break
        orphans |= not set(tmp_path.iterdir()) <= written
        remove_unfinished()
        assert set(tmp_path.iterdir()) <= written
    assert lines > 20
    assert orphans
    assert set(tmp_path.iterdir()) == written


@pytest.mark.parametrize("force", [False, True])
def test_of_several_files_none_has_its_name_if_the_last_step_of_one_fails(
    tmp_path: Path, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [TextFile(tmp_path / name) for name in ("a", "b")]

    def signalled(path: Path) -> None:
        raise Signalled

    monkeypatch.setattr("kldiv_cli.atomic.sync_directory", signalled)
    with pytest.raises(Signalled):
        commit_all(files, force=force)
    for file in files:
        file.discard()
    assert list(tmp_path.iterdir()) == []


def test_what_somebody_else_has_put_there_meanwhile_is_not_taken_back(tmp_path: Path) -> None:
    files = [TextFile(tmp_path / name) for name in ("a", "b")]
    (tmp_path / "b").write_text("another's")
    with pytest.raises(OutputError, match="exists by now"):
        commit_all(files, force=False)
    for file in files:
        file.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert (tmp_path / "b").read_text() == "another's"


def test_what_was_finished_or_put_away_is_not_removed_again(path: Path) -> None:
    """Somebody else may have taken the name meanwhile."""
    removed, published = new_temporary(path), new_temporary(path)
    remove_temporary(removed)
    publish(published, path, force=True)
    remove_temporary(published)
    removed.touch()
    published.touch()
    remove_unfinished()
    assert removed.exists()
    assert published.exists()
    assert path.exists()


# What is said


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (OSError(errno.ENOSPC, "whatever"), os.strerror(errno.ENOSPC), "make room, or choose another place"),
        (
            PermissionError(errno.EACCES, "whatever", "/tmp/.x.tmp"),
            os.strerror(errno.EACCES),
            "mend its permissions, or choose another place",
        ),
        (OSError(errno.EIO, "whatever"), os.strerror(errno.EIO), "choose another place"),
        (ValueError("two\n  lines"), "two lines", "choose another place"),
        (RuntimeError("of HDF5"), "of HDF5", "choose another place"),
    ],
)
def test_what_the_system_says_is_told_in_one_line_with_the_file_and_what_helps(
    error: Exception, reason: str, remedy: str
) -> None:
    told = f"kldiv.json: {reason}, nothing was written there; {remedy}"
    with pytest.raises(OutputError, match=f"^{re.escape(told)}$"), explained(Path("kldiv.json")):
        raise error


def test_what_holds_all_the_same_is_said_by_whoever_knows_it() -> None:
    with pytest.raises(OutputError, match=r"full, half is there; "), explained(Path("f"), "half is there"):
        raise OSError("full")


def test_what_we_say_ourselves_stays_as_it_is() -> None:
    with pytest.raises(OutputError, match=r"^ours$"), explained(Path("kldiv.json")):
        raise OutputError("ours")
