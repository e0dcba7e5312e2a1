"""The process: exit codes, signals, pipes, terminals and start-up."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import kldiv_cli
from kldiv_cli import __main__ as entry

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals, pipes and terminals of POSIX")

COMMAND = [sys.executable, "-m", "kldiv_cli"]
CONSOLE_SCRIPT = shutil.which("kldiv", path=str(Path(sys.executable).parent))
COLOUR = re.compile(r"\x1b\[[0-9;]+m")
SECONDS = 20


def environment(**variables: str) -> dict[str, str]:
    """Ours, without what changes how output looks."""
    odd = {"NO_COLOR", "FORCE_COLOR", "COLORTERM", "COLUMNS", "LINES"}
    odd |= {"PYTHONIOENCODING", "PYTHONUNBUFFERED"}
    kept = {name: value for name, value in os.environ.items() if name not in odd}
    return {**kept, "TERM": "xterm-256color", "PYTHONUTF8": "1", **variables}


def kldiv(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
    )


def shell(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which "$@" is kldiv with its arguments."""
    return subprocess.run(
        ["sh", "-c", script, "sh", *COMMAND, *arguments],
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
    )


class Seen(NamedTuple):
    code: int
    text: str


def on_terminal(
    *arguments: str,
    cwd: Path,
    streams: Sequence[str] = ("stdout", "stderr"),
    columns: int = 80,
    interrupted_at: bytes | None = None,
    variables: Mapping[str, str] = {},
) -> Seen:
    """Run with the given streams on a pseudo-terminal, and return what was seen on it.

    The process is interrupted as soon as `interrupted_at` was seen.
    """
    import fcntl
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=theirs if "stdout" in streams else subprocess.DEVNULL,
        stderr=theirs if "stderr" in streams else subprocess.DEVNULL,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
            if interrupted_at is not None and interrupted_at in seen:
                process.send_signal(signal.SIGINT)
                interrupted_at = None
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(ours)
    return Seen(process.wait(SECONDS), seen.decode().replace("\r\n", "\n"))


def sparse(path: Path, length: int) -> None:
    """A large .npy of zero bytes that takes no room."""
    np.save(path, np.zeros(0, np.uint8))
    header = path.read_bytes().replace(b"'shape': (0,)", f"'shape': ({length},)".encode())
    header = header[: header.index(b"}") + 1].ljust(127) + b"\n"
    path.write_bytes(header)
    os.truncate(path, 128 + length)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A directory with a pair to compare, q.npy and p.npy, and a wide one, wide_q.npy and wide_p.npy."""
    random = np.random.default_rng(1)
    for prefix, shape in (("", (6, 5)), ("wide_", (100, 120))):
        p = random.dirichlet(np.ones(shape[1]), shape[0])
        q = random.dirichlet(np.ones(shape[1]), shape[0])
        np.save(tmp_path / f"{prefix}p.npy", p)
        np.save(tmp_path / f"{prefix}q.npy", np.log(q))
    return tmp_path


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A directory with a pair that takes seconds."""
    sparse(tmp_path / "q.npy", 4_000_000_000)
    sparse(tmp_path / "p.npy", 4_000_000_000)
    return tmp_path


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `main` sets for its process is put back in ours."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)


# Exit codes


def test_a_computation_exits_0_with_its_result_on_stdout_and_nothing_on_stderr(pair: Path) -> None:
    done = kldiv("compute", "q.npy", "p.npy", cwd=pair)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("KL(p.npy ‖ q.npy), in nats\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["compute", "missing.npy", "p.npy"],
        ["compute", "q.npy"],
        ["compute", "q.npy", "p.npy", "--nonsense"],
        ["compute", "q.npy", "p.npy", "--format", "nonsense"],
        ["compute", "q.npy", "wide_p.npy"],
        ["nonsense"],
    ],
)
def test_what_cannot_be_computed_exits_2_with_one_line_on_stderr(pair: Path, arguments: list[str]) -> None:
    done = kldiv(*arguments, cwd=pair)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("kldiv: error: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["compute"]])
def test_nothing_to_do_shows_the_help_as_it_is_laid_out_and_exits_2(pair: Path, arguments: list[str]) -> None:
    done = kldiv(*arguments, cwd=pair)
    assert done.returncode == 2
    shown = done.stdout + done.stderr
    assert shown.startswith("Usage: kldiv")
    assert shown == kldiv(*arguments, "--help", cwd=pair).stdout


def test_an_internal_error_exits_3_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(*arguments: object, **options: object) -> None:
        raise RuntimeError("a fault that was put in")

    monkeypatch.setattr("kldiv_cli.api.open_inputs", fault)
    assert entry.main(["compute", "q.npy", "p.npy"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" in err
    assert "RuntimeError: a fault that was put in" in err
    assert err.endswith("kldiv: internal error: please report it with the lines above\n")


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (entry.Terminated(), 143), (MemoryError(), 2)]
)
def test_an_interruption_has_its_own_code_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("kldiv_cli.api.open_inputs", interrupted)
    assert entry.main(["compute", "q.npy", "p.npy"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    if code == 2:
        assert err == "kldiv: error: out of memory; give --memory a smaller SIZE, or --workers 1\n"


@pytest.mark.parametrize("module", ["typer", "kldiv_cli.cli.app", "numpy"])
def test_an_interrupt_while_modules_are_still_loaded_is_as_quiet_as_later(pair: Path, module: str) -> None:
    script = f"""
import sys
from kldiv_cli.__main__ import main

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
sys.exit(main(["compute", "q.npy", "p.npy"]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=pair, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


# Signals


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("output", ["map.npy", "map.h5"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_ends_a_long_computation_quietly_and_leaves_no_output(
    large: Path, number: signal.Signals, code: int, output: str, workers: str
) -> None:
    (large / output).write_bytes(b"an older map")
    arguments = ["compute", "q.npy", "p.npy", "--loss", "bce", "--workers", workers]
    writing = ["--output", output, "--output-dtype", "float16", "--force"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, *writing],
        cwd=large,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    before = {"q.npy", "p.npy", output}
    _wait_until(lambda: {path.name for path in large.iterdir()} > before, process)
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert {path.name for path in large.iterdir()} == before
    assert (large / output).read_bytes() == b"an older map"


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_lost_in_a_callback_comes_again_and_nothing_is_said_of_the_loss(
    number: signal.Signals, code: int
) -> None:
    script = f"""
import os, sys, time
import kldiv_cli.__main__ as entry

class Deaf:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
        time.sleep(0.1)

def run(arguments):
    Deaf()
    print("lost", flush=True)
    time.sleep(60)

entry._run = run
sys.exit(entry.main(["compute"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (code, "lost\n", "")


@pytest.mark.parametrize("output", ["map.npy", "map.h5"])
def test_an_interrupt_while_the_output_is_being_opened_leaves_nothing_of_it(
    pair: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(pair)
    monkeypatch.setattr("kldiv_cli.sinks._npy_header", interrupt)
    monkeypatch.setattr("h5py.File", interrupt)
    before = set(pair.iterdir())
    assert entry.main(["compute", "q.npy", "p.npy", "--output", output]) == 130
    assert set(pair.iterdir()) == before


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


def test_an_interrupt_takes_the_progress_bar_away_and_gives_the_cursor_back(large: Path) -> None:
    arguments = ["compute", "q.npy", "p.npy", "--loss", "bce"]
    seen = on_terminal(*arguments, cwd=large, interrupted_at=b"reading")
    assert seen.code == 130
    assert "reading" in seen.text
    assert "Traceback" not in seen.text
    assert seen.text.rindex("\x1b[?25h") > seen.text.rindex("\x1b[?25l")


# Pipes


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}], ids=["buffered", "unbuffered"])
def test_a_reader_that_leaves_early_ends_it_with_141_and_in_silence(
    pair: Path, variables: dict[str, str]
) -> None:
    """Without a buffer Python takes the part of a write that went out for the whole."""
    arguments = ["compute", "wide_q.npy", "wide_p.npy", "--reduction", "none", "--full"]
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=pair,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(1) == b"K"
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(SECONDS) == 141


@pytest.mark.parametrize("arguments", [["q.npy", "p.npy"], ["q.npy", "p.npy", "--reduction", "mean"]])
def test_a_reader_that_was_never_there_is_a_closed_pipe_too(pair: Path, arguments: list[str]) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        done = subprocess.run(
            [*COMMAND, "compute", *arguments],
            cwd=pair,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=ours,
            stderr=subprocess.PIPE,
        )
    finally:
        os.close(ours)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["compute", "--help"]])
def test_help_and_version_into_a_closed_pipe_are_quiet(pair: Path, arguments: list[str]) -> None:
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=pair, env=environment(), stdout=ours, stderr=subprocess.PIPE
        )
    finally:
        os.close(ours)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
def test_a_full_device_is_an_output_that_cannot_be_written(pair: Path) -> None:
    done = shell('"$@" > /dev/full', "compute", "q.npy", "p.npy", cwd=pair)
    assert done.returncode == 2
    assert done.stderr.startswith("kldiv: error: ")
    assert done.stderr.count("\n") == 1


def test_a_closed_stdout_is_an_output_that_cannot_be_written(pair: Path) -> None:
    done = shell('"$@" >&-', "compute", "q.npy", "p.npy", cwd=pair)
    assert done.returncode == 2
    assert done.stderr.startswith("kldiv: error: ")
    assert done.stderr.count("\n") == 1


def test_with_a_closed_stderr_no_note_gets_into_the_result(pair: Path) -> None:
    done = shell('"$@" 2>&-', "compute", "q.npy", "p.npy", "--json", "--reduction", "mean", cwd=pair)
    assert done.returncode == 0
    assert json.loads(done.stdout)["loss"] == "kl"


# Version, help and completion


def test_version_is_printed_alone() -> None:
    done = kldiv("--version", cwd=Path.cwd())
    assert (done.returncode, done.stdout, done.stderr) == (0, f"kldiv {kldiv_cli.__version__}\n", "")


def test_version_is_told_in_company_of_other_options_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.main(["--version", "compute"]) == 0
    assert capsys.readouterr() == (f"kldiv {kldiv_cli.__version__}\n", "")


@pytest.mark.skipif(CONSOLE_SCRIPT is None, reason="not installed")
def test_the_console_script_is_the_same_program(pair: Path) -> None:
    assert CONSOLE_SCRIPT is not None
    done = subprocess.run(
        [CONSOLE_SCRIPT, "compute", "q.npy", "p.npy"],
        cwd=pair,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == kldiv("compute", "q.npy", "p.npy", cwd=pair).stdout


def test_completion_for_a_shell_is_shown() -> None:
    done = kldiv("--show-completion", "bash", cwd=Path.cwd(), SHELL="/bin/bash")
    assert (done.returncode, done.stderr) == (0, "")
    assert "_KLDIV_COMPLETE=complete_bash" in done.stdout
    assert "complete -o default -F _kldiv_completion kldiv" in done.stdout


@pytest.mark.skipif(CONSOLE_SCRIPT is None, reason="not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("kldiv comp", ["compute", "compare"]),
        ("kldiv compu", ["compute"]),
        ("kldiv compute --reduc", ["--reduction", "--reduce"]),
        ("kldiv compute --reduction d", ["distmean"]),
        ("kldiv compute --targets-are l", ["log-probs", "logits", "labels"]),
    ],
)
def test_the_shell_is_answered_with_what_completes_a_word(words: str, completed: list[str]) -> None:
    assert CONSOLE_SCRIPT is not None
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [CONSOLE_SCRIPT],
        env=environment(_KLDIV_COMPLETE="complete_bash", **asked),
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == completed


# Terminals


def test_auto_is_a_table_on_a_terminal_and_plain_in_a_pipe(pair: Path) -> None:
    seen = on_terminal("compute", "q.npy", "p.npy", cwd=pair)
    assert seen.code == 0
    assert "────" in seen.text
    assert COLOUR.search(seen.text)
    piped = kldiv("compute", "q.npy", "p.npy", cwd=pair)
    assert "────" not in piped.stdout
    assert "\x1b" not in piped.stdout
    assert piped.stdout == kldiv("compute", "q.npy", "p.npy", "--format", "plain", cwd=pair).stdout


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"TERM": "linux"}, True),
    ],
)
def test_colour_on_a_terminal_follows_the_environment(
    pair: Path, variables: dict[str, str], coloured: bool
) -> None:
    seen = on_terminal("compute", "q.npy", "p.npy", cwd=pair, variables=variables)
    assert ("\x1b" in seen.text) is coloured
    assert "────" in seen.text


def test_forced_colour_in_a_pipe_is_of_tables_only(pair: Path) -> None:
    table = kldiv("compute", "q.npy", "p.npy", "--format", "table", cwd=pair, FORCE_COLOR="1")
    assert COLOUR.search(table.stdout)
    plain = kldiv("compute", "q.npy", "p.npy", cwd=pair, FORCE_COLOR="1")
    assert "\x1b" not in plain.stdout


@pytest.mark.parametrize("format", ["plain", "table"])
def test_nothing_is_cut_to_a_width_in_a_pipe(pair: Path, format: str) -> None:
    """Whatever COLUMNS says."""
    arguments = ["--reduction", "none", "--full", "--map-slice", "0:2,:", "--format", format]
    done = kldiv("compute", "wide_q.npy", "wide_p.npy", *arguments, cwd=pair, COLUMNS="40")
    assert "…" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()[-3:] if line.strip()]
    assert len(rows[-1]) == 121


def test_a_map_is_cut_to_the_width_of_the_terminal(pair: Path) -> None:
    arguments = ["--reduction", "none", "--map-slice", "0:2,:", "--precision", "3"]
    for columns in (60, 150):
        seen = on_terminal("compute", "wide_q.npy", "wide_p.npy", *arguments, cwd=pair, columns=columns)
        lines = COLOUR.sub("", seen.text).splitlines()
        assert max(len(line) for line in lines) <= columns
        header = next(line.split() for line in lines if "dim 0" in line)
        assert header[-1] == "119"
        assert "…" in header


def test_a_progress_bar_is_shown_on_a_terminal_where_it_is_asked_for(pair: Path) -> None:
    arguments = ["compute", "q.npy", "p.npy"]
    asked = on_terminal(*arguments, "--progress", cwd=pair, streams=["stderr"])
    assert "━━━" in asked.text
    assert "480/480 bytes" in asked.text
    assert asked.text.endswith("\x1b[2K")
    assert on_terminal(*arguments, "--no-progress", cwd=pair, streams=["stderr"]).text == ""
    assert on_terminal(*arguments, cwd=pair, streams=["stderr"]).text == ""


def test_a_progress_bar_is_shown_unasked_for_large_files_on_a_terminal_only(tmp_path: Path) -> None:
    for name in ("q.npy", "p.npy"):
        sparse(tmp_path / name, 33 << 20)
    with open(tmp_path / "q.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x05")
    arguments = ["compute", "q.npy", "p.npy", "--loss", "bce", "--predictions-are", "logits"]
    assert "━━━" in on_terminal(*arguments, cwd=tmp_path, streams=["stderr"]).text
    assert on_terminal(*arguments, "--no-progress", cwd=tmp_path, streams=["stderr"]).text == ""
    assert kldiv(*arguments, cwd=tmp_path).stderr == ""


def test_a_progress_bar_never_gets_into_a_pipe_or_onto_stdout(pair: Path) -> None:
    done = kldiv("compute", "q.npy", "p.npy", "--progress", cwd=pair)
    assert done.stderr == ""
    assert done.stdout == kldiv("compute", "q.npy", "p.npy", cwd=pair).stdout


def test_a_progress_bar_has_no_colour_where_there_should_be_none(pair: Path) -> None:
    seen = on_terminal(
        "compute", "q.npy", "p.npy", "--progress", cwd=pair, streams=["stderr"], variables={"NO_COLOR": "1"}
    )
    assert not COLOUR.search(seen.text)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_stream_that_lacks_a_character_has_it_escaped_and_json_stays_json(
    pair: Path, encoding: str
) -> None:
    name = "é日😀.npy"
    os.replace(pair / "q.npy", pair / name)
    arguments = ["compute", name, "p.npy"]
    plain = subprocess.run(
        [*COMMAND, *arguments],
        cwd=pair,
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
    )
    assert (plain.returncode, plain.stderr) == (0, b"")
    assert rb"KL(p.npy \u2016 " in plain.stdout
    record = subprocess.run(
        [*COMMAND, *arguments, "--json"],
        cwd=pair,
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
    )
    assert json.loads(record.stdout.decode("utf-8"))["predictions"]["address"] == name


def test_a_name_that_is_no_unicode_is_shown_escaped(pair: Path) -> None:
    name = os.fsdecode(b"q\xff.npy")
    try:
        os.replace(pair / "q.npy", pair / name)
    except OSError:
        pytest.skip("the file system has Unicode names only")
    done = kldiv("compute", name, "p.npy", cwd=pair)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"q\udcff.npy" in done.stdout
    record = kldiv("compute", name, "p.npy", "--json", cwd=pair)
    assert json.loads(record.stdout)["predictions"]["address"] == name
