from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kldiv_cli.errors import OutputError
from kldiv_cli.text_sinks import append_text, check_output_text, write_text

MARK = "<!-- a report -->\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kldiv.json"


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 64 KiB: what a full disk or a quota does, without one."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def shut() -> Iterator[Path]:
    """A directory that anyone may read and we may not write to, even if we are root."""
    if os.name != "posix":
        pytest.skip("needs the permissions of POSIX")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        (Path(name) / "old.json").write_text("old")
        os.chmod(name, 0o555)
        root = os.geteuid() == 0
        if root:
            os.setresuid(65534, 65534, 0)
        yield Path(name)
        if root:
            os.setresuid(0, 0, 0)
        os.chmod(name, 0o755)


# Whole or not at all


@pytest.mark.parametrize("text", ["", "a\nb\n", "é日😀\n", "a\r\nb\rc"])
def test_the_text_is_written_in_utf8_and_no_line_ending_is_changed(path: Path, text: str) -> None:
    write_text(path, text, force=True)
    assert path.read_bytes() == text.encode()
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("small_files")
def test_a_text_that_does_not_fit_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    path.write_text("old")
    with pytest.raises(
        OutputError, match=r"kldiv.json: File too large, nothing was written there; make room, "
    ):
        write_text(path, "x" * 100_000, force=True)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", ["os.fsync", "os.chmod", "os.replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=repr)
def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_else(
    path: Path, step: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    path.write_text("old")
    monkeypatch.setattr(step, fail)
    with pytest.raises((OutputError, KeyboardInterrupt)):
        write_text(path, "new", force=True)
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("again", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_on_the_way_out_changes_nothing(path: Path, again: str) -> None:
    script = f"""
import os, signal, sys
import kldiv_cli.__main__ as entry
import kldiv_cli.atomic as atomic

remove = atomic.remove_unfinished

def removing():
    os.kill(os.getpid(), signal.{again})
    remove()

def run(arguments):
    from pathlib import Path
    atomic.remove_unfinished = removing
    atomic.new_temporary(Path({str(path)!r}))
    os.kill(os.getpid(), signal.SIGTERM)

entry._run = run
sys.exit(entry.main(["baseline"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "")
    assert list(path.parent.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("step", ["fsync", "chmod", "replace"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_at_any_step_leaves_the_old_file_and_nothing_else(
    path: Path, step: str, number: signal.Signals, code: int
) -> None:
    path.write_text("old")
    script = f"""
import os, signal, sys, time
import kldiv_cli.__main__ as entry

def killed(*arguments):
    os.kill(os.getpid(), {int(number)})
    time.sleep(5)

def run(arguments):
    from pathlib import Path
    from kldiv_cli.text_sinks import write_text
    os.{step} = killed
    write_text(Path({str(path)!r}), "new", force=True)

entry._run = run
sys.exit(entry.main(["baseline"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_text_that_is_no_unicode_is_an_output_error(path: Path) -> None:
    with pytest.raises(OutputError, match="nothing was written there"):
        write_text(path, "\udc80", force=True)
    assert list(path.parent.iterdir()) == []


def test_without_force_a_file_that_is_there_stays(path: Path) -> None:
    write_text(path, "first", force=False)
    with pytest.raises(OutputError, match="exists by now"):
        write_text(path, "second", force=False)
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_text_is_added_to_what_others_wrote(path: Path) -> None:
    path.write_bytes(b"theirs\n")
    append_text(path, "ours\n")
    append_text(path, "é\n")
    assert path.read_bytes() == "theirs\nours\né\n".encode()


def test_text_that_cannot_be_added_is_told_with_its_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"b.json: No such file or directory, nothing was written there; "):
        append_text(tmp_path / "missing" / "b.json", "ours\n")


# Where it may go


def test_the_option_stands_before_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^junit .*missing/b.json: no directory"):
        check_output_text("junit", str(tmp_path / "missing" / "b.json"), [])


def test_a_link_is_followed_so_that_it_stays_one(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)
    assert check_output_text("junit", str(tmp_path / "link"), []) == path.resolve()


@pytest.mark.parametrize(
    ("contents", "mark", "force", "allowed"),
    [
        (MARK + "old", MARK, False, True),
        ("something else", MARK, False, False),
        (MARK[:-3], MARK, False, False),
        ("", MARK, False, False),
        ("something else", "", False, False),
        ("something else", MARK, True, True),
    ],
)
def test_only_an_earlier_report_is_replaced_without_force(
    path: Path, contents: str, mark: str, force: bool, allowed: bool
) -> None:
    path.write_text(contents, newline="\n")
    if allowed:
        assert check_output_text("md", str(path), [], mark=mark, force=force) == path.resolve()
    else:
        with pytest.raises(OutputError, match="exists; overwrite it with --force"):
            check_output_text("md", str(path), [], mark=mark, force=force)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no FIFOs")
@pytest.mark.parametrize("mark", ["", MARK])
def test_a_pipe_is_refused_without_waiting_for_a_writer(path: Path, mark: str) -> None:
    os.mkfifo(path)
    with pytest.raises(OutputError, match="is not a regular file"):
        check_output_text("md", str(path), [], mark=mark)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError) as caught:
        check_output_text("md", str(tmp_path / name), [], mark=MARK)
    assert "\n" not in str(caught.value)


def test_an_input_is_not_overwritten(path: Path) -> None:
    path.touch()
    with pytest.raises(OutputError, match="is the input"):
        check_output_text("md", str(path), [str(path)], force=True)


def test_a_directory_that_cannot_be_written_to_is_told_before_the_work(shut: Path) -> None:
    with pytest.raises(
        OutputError,
        match=rf"^{shut}/old.json: Permission denied, nothing was written there; mend its permissions, ",
    ):
        check_output_text("baseline", str(shut / "old.json"), [], force=True)


def test_looking_whether_a_file_can_be_written_leaves_nothing_there(path: Path) -> None:
    check_output_text("baseline", str(path), [])
    assert list(path.parent.iterdir()) == []
