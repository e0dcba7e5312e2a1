"""`kldiv baseline` as a user types it: nothing is ever written that was not asked for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from kldiv_cli.__main__ import main
from kldiv_cli.atomic import publish
from kldiv_cli.baseline_file import read_baseline

FORMATS = ("plain", "table", "json", "jsonl", "csv", "md")
COMMAND = [sys.executable, "-m", "kldiv_cli"]
CONSOLE_SCRIPT = shutil.which("kldiv", path=str(Path(sys.executable).parent))
PAIR = ("q.npy", "p.npy", "--log-softmax", "-1", "--baseline", "b.json")
SUITE = """
baseline = "b.json"
[defaults]
log_softmax = -1
limits = ["distmean < 9"]
[pairs.one]
predictions = "q.npy"
targets = "p.npy"
[pairs.two]
predictions = "r.npy"
targets = "p.npy"
"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")


class Run(NamedTuple):
    code: int
    out: str
    err: str


Kldiv = Callable[..., Run]


@pytest.fixture(autouse=True)
def arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, npt.NDArray[Any]]:
    """The current directory has logits q, r and s, targets p, and a suite of q and r."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    arrays: dict[str, npt.NDArray[Any]] = {name: rng.normal(0, 2, (40, 5)) for name in "qrs"}
    arrays["p"] = rng.dirichlet(np.ones(5), 40)
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    Path("suite.toml").write_text(SUITE)
    return arrays


@pytest.fixture
def kldiv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kldiv:
    """Run `kldiv` in this process; what `main` sets for its process is put back."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)

    def run(*arguments: str) -> Run:
        return Run(main(list(arguments)), *capsys.readouterr())

    return run


@pytest.fixture
def baseline(kldiv: Kldiv) -> Path:
    """What q comes to, recorded as ``q``."""
    assert kldiv("baseline", "record", *PAIR).code == 0
    return Path("b.json")


def files() -> dict[str, tuple[bytes, int]]:
    """All files of the current directory, and when each was written."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path().iterdir()}


def pairs_of(path: Path | str = "b.json") -> list[str]:
    return list(read_baseline(str(path)).pairs)


def addresses(path: Path | str = "b.json") -> list[str]:
    return [pair.inputs["predictions"].address for pair in read_baseline(str(path)).pairs.values()]


def error(run: Run, code: int = 2) -> str:
    """The one line that says what was wrong."""
    assert (run.code, run.err.count("\n")) == (code, 1), run.err
    return run.err.removeprefix("kldiv: error: ").removesuffix("\n")


# record


def test_a_pair_is_recorded_by_the_name_of_its_file_in_a_new_baseline(kldiv: Kldiv) -> None:
    run = kldiv("baseline", "record", *PAIR)
    assert run == (0, "", "recorded: 1 of 1 pairs in b.json\n")
    assert pairs_of() == ["q"]
    assert json.loads(Path("b.json").read_text())["schema"] == "kldiv-baseline/1"


def test_a_pair_is_recorded_beside_others_by_a_name_of_choice(kldiv: Kldiv, baseline: Path) -> None:
    before = read_baseline("b.json").pairs["q"]
    run = kldiv("baseline", "record", *PAIR, "--name", "a/b é")
    assert run == (0, "", "recorded: 1 of 2 pairs in b.json\n")
    assert pairs_of() == ["a/b é", "q"]
    assert read_baseline("b.json").pairs["q"] == before


def test_all_pairs_of_a_suite_are_recorded_in_the_file_that_it_names(kldiv: Kldiv) -> None:
    assert kldiv("baseline", "record", "suite.toml") == (0, "", "recorded: 2 of 2 pairs in b.json\n")
    assert pairs_of() == ["one", "two"]


def test_the_suite_in_pyproject_is_the_default(kldiv: Kldiv) -> None:
    suite = SUITE.replace("[", "[tool.kldiv.").replace('["', '["').replace('[tool.kldiv."', '["')
    Path("pyproject.toml").write_text(f"[tool.kldiv]{suite}")
    assert kldiv("baseline", "record").code == 0
    assert pairs_of() == ["one", "two"]


def test_a_baseline_without_pairs_takes_the_first(kldiv: Kldiv) -> None:
    Path("b.json").write_text('{"schema": "kldiv-baseline/1", "pairs": {}}')
    assert kldiv("baseline", "record", *PAIR).code == 0
    assert pairs_of() == ["q"]


def test_a_pair_that_is_there_is_never_replaced(kldiv: Kldiv, baseline: Path) -> None:
    before = files()
    assert error(kldiv("baseline", "record", *PAIR)) == (
        "b.json: has the pair 'q' already; replace what it has with kldiv baseline update"
    )
    assert files() == before


def test_of_a_suite_the_pairs_that_the_baseline_lacks_are_added(kldiv: Kldiv, baseline: Path) -> None:
    Path("suite.toml").write_text(SUITE.replace("pairs.one", "pairs.q"))
    before = pairs_of()
    assert kldiv("baseline", "record", "suite.toml").code == 0
    assert (before, pairs_of()) == (["q"], ["q", "two"])
    assert error(kldiv("baseline", "record", "suite.toml")) == (
        "b.json: has the pair 'q' already and all others; replace what it has with kldiv baseline update"
    )


@pytest.mark.parametrize("command", ["record", "update"])
def test_what_would_fail_any_check_is_not_written_unless_allowed(
    kldiv: Kldiv, baseline: Path, arrays: dict[str, npt.NDArray[Any]], command: str
) -> None:
    np.save("q.npy", np.log(arrays["p"]))
    before = files()
    arguments = ["q.npy", "q.npy", "--log-target", "--baseline", "b.json", "--name", "new"]
    arguments += ["--yes"] if command == "update" else []
    run = kldiv("baseline", command, *arguments)
    assert (run.code, run.out) == (1, "")
    assert run.err.startswith("error: new: ")
    assert run.err.endswith("(to record it all the same, allow identical)\nnote: nothing was written\n")
    assert files() == before
    assert kldiv("baseline", command, *arguments, "--allow", "identical").code == 0
    assert pairs_of() == ["new", "q"]


def test_losses_of_nan_are_recorded_where_they_are_allowed_and_compare_equal(
    kldiv: Kldiv, arrays: dict[str, npt.NDArray[Any]]
) -> None:
    arrays["q"][3, 3] = np.nan
    np.save("q.npy", arrays["q"])
    assert kldiv("baseline", "record", *PAIR).code == 1
    assert not Path("b.json").exists()
    assert kldiv("baseline", "record", *PAIR, "--allow", "nan-terms").code == 0
    before = files()
    run = kldiv("baseline", "update", *PAIR, "--allow", "nan-terms")
    assert run.code == 0
    assert run.err.endswith("note: nothing changed; b.json was not written\n")
    assert run.out.startswith("0 of 21 numbers changed\n")
    assert files() == before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["q.npy", "p.npy"], "--baseline: which file? say --baseline FILE"),
        (["missing.npy", "p.npy", "--baseline", "b.json"], "missing.npy: no such file"),
        (["q.npy", "p.npy", "--baseline", "missing/b.json"], "--baseline missing/b.json: no directory"),
        (["q.npy", "p.npy", "--baseline", "q.npy"], "q.npy: not UTF-8"),
        (["q.npy", "p.npy", "--baseline", "."], ".: a directory, expected a regular file"),
        (["q.npy", "p.npy", "--baseline", "x" * 300], "File name too long"),
        (["suite.toml", "--axis", "1"], "--axis: is for a single pair"),
        (["suite.toml", "--allow", "identical"], "--allow: is for a single pair"),
        (["q.npy", "p.npy", "--baseline", "b.json", "--allow", "identicla"], "did you mean 'identical'?"),
    ],
)
def test_what_cannot_be_recorded_is_told_in_one_line_and_nothing_is_written(
    kldiv: Kldiv, arguments: list[str], told: str
) -> None:
    before = files()
    assert told in error(kldiv("baseline", "record", *arguments))
    assert files() == before


def test_a_suite_that_names_a_file_no_file_can_be_called_is_told(kldiv: Kldiv) -> None:
    Path("suite.toml").write_text(SUITE.replace("b.json", "a\\u0000b"))
    for command in ("record", "update"):
        assert r"baseline: 'a\x00b', expected FILE" in error(kldiv("baseline", command, "suite.toml"))


def test_a_damaged_baseline_is_left_as_it_is(kldiv: Kldiv, baseline: Path) -> None:
    baseline.write_bytes(baseline.read_bytes()[:-10])
    before = files()
    for command in ("record", "update"):
        assert error(kldiv("baseline", command, *PAIR)).startswith("b.json: no JSON")
    assert files() == before


@posix
def test_a_link_to_a_baseline_stays_a_link(kldiv: Kldiv) -> None:
    Path("kept").mkdir()
    Path("b.json").symlink_to("kept/real.json")
    assert kldiv("baseline", "record", *PAIR).code == 0
    assert kldiv("baseline", "record", *PAIR, "--name", "new").code == 0
    assert Path("b.json").is_symlink()
    assert pairs_of("kept/real.json") == ["new", "q"]


@pytest.mark.parametrize("command", ["record", "update"])
def test_what_another_wrote_meanwhile_is_not_overwritten(
    kldiv: Kldiv, baseline: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    from kldiv_cli import gate

    computed = gate.measure

    def slow(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr("kldiv_cli.gate.measure", computed)
        assert kldiv("baseline", "record", *PAIR, "--name", "theirs").code == 0
        return computed(*arguments, **options)

    monkeypatch.setattr("kldiv_cli.gate.measure", slow)
    ours = [*PAIR, "--name", "ours", *(["--yes"] if command == "update" else [])]
    run = kldiv("baseline", command, *ours)
    assert run.code == 2
    assert run.err.endswith("b.json: changed meanwhile, so it was not written; run again\n")
    assert pairs_of() == ["q", "theirs"]


def test_a_baseline_that_came_at_the_last_moment_is_not_overwritten(
    kldiv: Kldiv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(temporary: Path, path: Path, *, force: bool) -> None:
        path.write_text("another's")
        publish(temporary, path, force=force)

    monkeypatch.setattr("kldiv_cli.atomic.publish", late)
    assert "b.json: exists by now" in error(kldiv("baseline", "record", *PAIR))
    assert Path("b.json").read_text() == "another's"


# update


@pytest.mark.parametrize("format", FORMATS)
def test_an_update_shows_each_number_before_and_after_and_is_written_when_said(
    kldiv: Kldiv, baseline: Path, format: str
) -> None:
    assert kldiv("baseline", "record", *PAIR, "--name", "other").code == 0
    other = read_baseline("b.json").pairs["other"]
    old = read_baseline("b.json").pairs["q"].quantities()["distmean"]
    run = kldiv("baseline", "update", "r.npy", *PAIR[1:], "--name", "q", "--yes", "--format", format)
    assert (run.code, run.err) == (0, "note: changed too: q: predictions\nupdated: b.json\n")
    new = read_baseline("b.json").pairs["q"].quantities()["distmean"]
    assert old != new
    for value in (old, new):
        assert (f"{value:.6g}" if format == "table" else repr(value)) in run.out
    assert "other" not in run.out
    assert read_baseline("b.json").pairs["other"] == other


def test_json_is_short_for_its_format(kldiv: Kldiv, baseline: Path) -> None:
    long = kldiv("baseline", "update", *PAIR, "--format", "json")
    assert kldiv("baseline", "update", *PAIR, "--json") == long
    assert json.loads(long.out)["changed"] == 0


def test_an_update_of_a_suite_leaves_its_pairs_and_no_others(kldiv: Kldiv, baseline: Path) -> None:
    run = kldiv("baseline", "update", "suite.toml", "--yes", "--format", "csv")
    assert run.code == 0
    assert {line.split(",")[0] for line in run.out.splitlines()[1:]} == {"one", "two", "q"}
    assert pairs_of() == ["one", "two"]
    assert kldiv("check", "suite.toml").code == 0


def test_an_update_without_a_baseline_is_an_error(kldiv: Kldiv) -> None:
    before = files()
    told = "b.json: no such baseline; record it with kldiv baseline record"
    assert error(kldiv("baseline", "update", *PAIR, "--yes")) == told
    assert files() == before


@pytest.mark.parametrize("arguments", [(), ("--yes",)])
def test_where_nothing_changed_the_file_is_not_touched(
    kldiv: Kldiv, baseline: Path, arguments: tuple[str, ...]
) -> None:
    before = files()
    time.sleep(0.01)
    run = kldiv("baseline", "update", *PAIR, *arguments)
    assert (run.code, run.err) == (0, "note: nothing changed; b.json was not written\n")
    assert files() == before


def test_a_baseline_that_was_laid_out_otherwise_is_not_touched_either(kldiv: Kldiv, baseline: Path) -> None:
    baseline.write_text(json.dumps(json.loads(baseline.read_text())), newline="\r\n")
    before = files()
    assert kldiv("baseline", "update", *PAIR, "--yes").code == 0
    assert files() == before


def test_an_update_with_nobody_to_ask_needs_yes_and_writes_nothing(kldiv: Kldiv, baseline: Path) -> None:
    before = files()
    run = kldiv("baseline", "update", "r.npy", *PAIR[1:], "--name", "q")
    assert run.code == 2
    assert run.out.startswith("18 of 21 numbers changed")
    assert run.err.splitlines()[-1] == (
        "kldiv: error: --yes: nobody to ask here, so b.json was not written; say --yes to accept the changes"
    )
    assert files() == before


@posix
@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"y\n", 0), (b" YES \n", 0), (b"n\n", 1), (b"\n", 1), (b"yep\n", 1), (b"\xff\n", 1), (b"\x04", 1)],
)
def test_an_update_asks_at_a_terminal_and_writes_only_after_a_yes(
    kldiv: Kldiv, baseline: Path, answer: bytes, code: int
) -> None:
    before = files()
    done, seen = at_terminal([*PAIR[1:], "--name", "q"], answer)
    assert done == code
    assert "18 of 21 numbers changed" in seen
    assert "write these numbers to b.json? [y/N] " in seen
    if code == 0:
        assert seen.rstrip().endswith("updated: b.json")
        assert addresses() == ["r.npy"]
    else:
        assert seen.rstrip().endswith("note: nothing was written")
        assert files() == before


@posix
def test_an_interrupt_at_the_question_writes_nothing(kldiv: Kldiv, baseline: Path) -> None:
    before = files()
    done, seen = at_terminal([*PAIR[1:], "--name", "q"], b"\x03")
    assert done == 130
    assert "Traceback" not in seen
    assert files() == before


@posix
@pytest.mark.parametrize("terminal", ["stdin", "stderr"])
def test_an_answer_in_a_pipe_is_none_and_a_question_in_a_pipe_is_not_asked(
    baseline: Path, terminal: str
) -> None:
    import pty

    before = files()
    ours, theirs = pty.openpty()
    os.write(ours, b"y\n")
    pipe_in, pipe_out = os.pipe()
    os.write(pipe_out, b"y\n")
    os.close(pipe_out)
    process = subprocess.run(
        [*COMMAND, "baseline", "update", "r.npy", *PAIR[1:], "--name", "q"],
        stdin=theirs if terminal == "stdin" else pipe_in,
        stderr=theirs if terminal == "stderr" else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=20,
    )
    for descriptor in (ours, theirs, pipe_in):
        os.close(descriptor)
    assert process.returncode == 2
    assert files() == before


def at_terminal(arguments: list[str], answer: bytes) -> tuple[int, str]:
    """Update to r at a pseudo-terminal; the answer is typed when it is asked for."""
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [*COMMAND, "baseline", "update", "r.npy", *arguments])
    seen = b""
    try:
        while piece := os.read(terminal, 65536):
            seen += piece
            if b"[y/N] " in seen and answer:
                os.write(terminal, answer)
                answer = b""
    except OSError:  # Linux says so when the other end is closed
        pass
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode(errors="replace").replace(
        "\r\n", "\n"
    )


# Whole or not at all


@pytest.mark.parametrize("command", ["record", "update"])
def test_a_baseline_that_does_not_fit_on_the_disk_leaves_the_old_one(
    kldiv: Kldiv, baseline: Path, command: str
) -> None:
    resource = pytest.importorskip("resource")
    before, limits = files(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yes = ["--yes"] if command == "update" else []
        run = kldiv("baseline", command, *PAIR, "--name", "new", *yes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.code == 2
    assert run.err.endswith(
        "b.json: File too large, nothing was written there; make room, or choose another place\n"
    )
    assert files() == before


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="sees in /proc when a file was opened")
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_while_computing_leaves_the_old_baseline(
    kldiv: Kldiv, baseline: Path, number: str, code: int
) -> None:
    for name in ("large_q.npy", "large_p.npy"):
        sparse(Path(name), 4_000_000_000)
    before = {path.name for path in Path().iterdir()}
    old = baseline.read_bytes()
    process = subprocess.Popen(
        [
            *COMMAND,
            "baseline",
            "record",
            "large_q.npy",
            "large_p.npy",
            "--loss",
            "bce",
            "--baseline",
            "b.json",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until_open("large_q.npy", process)
    process.send_signal(getattr(signal, number))
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == code
    assert {path.name for path in Path().iterdir()} == before
    assert baseline.read_bytes() == old


def wait_until_open(name: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    opened = Path(f"/proc/{process.pid}/fd")
    while not any(os.path.realpath(descriptor).endswith(name) for descriptor in opened.iterdir()):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


def sparse(path: Path, length: int) -> None:
    """A large .npy of zero bytes that takes no room."""
    np.save(path, np.zeros(0, np.uint8))
    header = path.read_bytes().replace(b"'shape': (0,)", f"'shape': ({length},)".encode())
    header = header[: header.index(b"}") + 1].ljust(127) + b"\n"
    path.write_bytes(header)
    os.truncate(path, 128 + length)


# check against it


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        (["--log-softmax", "0"], "axis 1, now 0"),
        (["--log-softmax", "-1", "--loss", "bce"], "loss kl, now bce"),
        (["--log-softmax", "-1", "--loss", "kl", "--loss", "bce"], "loss kl, now kl and bce"),
        (["--log-softmax", "-1", "--targets-are", "logits"], "targets_are probs, now logits"),
        (["--log-softmax", "-1", "--temperature", "2"], "temperature none, now 2.0"),
        (["--log-softmax", "-1", "--zero-policy", "torch"], "zero_policy limit, now torch"),
        (["--log-softmax", "-1", "--broadcast"], "broadcast false, now true"),
        (["--log-softmax", "-1", "--ignore-value", "nan"], "ignore_value none, now nan"),
        (["--log-softmax", "-1", "--trim-axis"], "trim_axis false, now true"),
        (["--log-softmax", "-1", "--blocks-of", "4"], "blocks_of none, now 4"),
        (["--log-softmax", "-1", "--mask", "mask.npy"], "mask false, now true"),
    ],
)
def test_a_check_with_another_option_than_was_recorded_is_refused(
    kldiv: Kldiv, baseline: Path, options: list[str], setting: str
) -> None:
    np.save("mask.npy", np.ones(40, bool))
    files = ["q.npy", "p.npy", "--baseline", "b.json", "--allow", "predictions-unnormalised"]
    run = kldiv("check", *files, *options, "--limit", "elements < 1e9")
    assert run.code == 2
    assert f"b.json: q: recorded with {setting}; give the same options" in run.err


@pytest.mark.parametrize(
    "options",
    [
        ["--log-softmax", "1"],
        ["--predictions-are", "logits"],
        ["--log-softmax", "-1", "--quantiles", "0.25"],
        ["--log-softmax", "-1", "--worst", "3", "--by-target"],
        ["--log-softmax", "-1", "--workers", "1", "--memory", "16MiB"],
    ],
)
def test_a_check_that_comes_to_the_same_numbers_in_another_way_is_held_to_them(
    kldiv: Kldiv, baseline: Path, options: list[str]
) -> None:
    files = ["q.npy", "p.npy", "--baseline", "b.json"]
    run = kldiv("check", *files, *options, "--limit", "distmean == baseline", "--limit", "p99 <= baseline")
    assert run.code == 0
    assert "the predictions are those of the baseline" in run.err


def test_a_pair_of_two_losses_is_held_to_its_counts(kldiv: Kldiv) -> None:
    both = [*PAIR, "--loss", "kl", "--loss", "bce"]
    assert kldiv("baseline", "record", *both).code == 0
    limits = ["--limit", "elements == baseline", "--limit", "bce.mean <= baseline"]
    assert kldiv("check", *both, *limits).code == 0


def test_a_limit_on_a_number_that_the_baseline_lacks_is_told(kldiv: Kldiv, baseline: Path) -> None:
    baseline.write_text(baseline.read_text().replace('"distmean"', '"distmean_of_old"'))
    run = kldiv("check", *PAIR, "--limit", "distmean < baseline * 2")
    assert "b.json: q: has no 'distmean', which limit" in error(run)


def test_a_check_without_its_baseline_is_told_how_to_record_it(kldiv: Kldiv) -> None:
    run = kldiv("check", *PAIR, "--limit", "distmean < baseline * 2")
    assert error(run) == "b.json: no such baseline; record it with kldiv baseline record"
    assert not Path("b.json").exists()


# show and suggest


@pytest.mark.parametrize("format", FORMATS)
def test_a_baseline_is_shown_in_every_format(kldiv: Kldiv, baseline: Path, format: str) -> None:
    run = kldiv("baseline", "show", "b.json", "--format", format)
    assert (run.code, run.err) == (0, "")
    assert "distmean" in run.out


def test_a_baseline_in_json_is_the_file(kldiv: Kldiv, baseline: Path) -> None:
    assert kldiv("baseline", "show", "b.json", "--json") == (0, baseline.read_text(), "")


def test_limits_that_runs_suggest_are_kept_by_each_of_them(kldiv: Kldiv) -> None:
    """Pasted into a suite, with the files that a pair is of, and into a command."""
    for name in "qrs":
        arguments = [f"{name}.npy", *PAIR[1:4], "--baseline", f"run_{name}.json", "--name", "my pair"]
        assert kldiv("baseline", "record", *arguments).code == 0
    run = kldiv("baseline", "suggest", "run_q.json", "run_r.json", "run_s.json")
    assert (run.code, run.err) == (0, "")
    limits = tomllib.loads(run.out)["pairs"]["my pair"]["limits"]
    assert [limit.split()[0] for limit in limits] == ["distmean", "p99", "top1"]
    (command,) = [line for line in run.out.splitlines() if line.startswith("# kldiv check: ")]
    for name in "qrs":
        pair = f'predictions = "{name}.npy"\ntargets = "p.npy"\nlog_softmax = -1\n'
        Path("suite.toml").write_text(run.out.replace('"my pair"]\n', f'"my pair"]\n{pair}'))
        assert kldiv("check", "suite.toml").code == 0
        options = command.removeprefix("# kldiv check: ").replace("--limit '", "").split("' ")
        limited = [part for text in options for part in ("--limit", text.removesuffix("'"))]
        assert kldiv("check", f"{name}.npy", *PAIR[1:4], *limited).code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["b.json"], "one run says nothing"),
        (["b.json", "missing.json"], "missing.json: no such baseline"),
        (["b.json", "b.json", "--statistic", "p42"], "b.json: q has no statistic 'p42'"),
        (["b.json", "b.json", "--sigmas", "nan"], "--sigmas nan: expected a finite number"),
        (["b.json", "b.json", "--floor", "-1"], "--floor -1.0: expected a finite number"),
    ],
)
def test_what_suggests_nothing_is_told(kldiv: Kldiv, baseline: Path, arguments: list[str], told: str) -> None:
    assert told in error(kldiv("baseline", "suggest", *arguments))


# Help and completion


@pytest.mark.parametrize("command", ["record", "update", "show", "suggest"])
def test_a_mistake_in_the_arguments_names_the_help_of_the_command(kldiv: Kldiv, command: str) -> None:
    told = error(kldiv("baseline", command, "--nonsense"))
    assert told.endswith(f"; see kldiv baseline {command} --help")


def test_an_unknown_command_names_the_help_of_the_group(kldiv: Kldiv) -> None:
    assert error(kldiv("baseline", "nonsense")).endswith("; see kldiv baseline --help")
    assert error(kldiv("nonsense")).endswith("; see kldiv --help")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], *([name, "--help"] for name in ("record", "update", "show", "suggest"))]
)
def test_help_loads_neither_numpy_nor_hdf5_nor_rich(arguments: list[str]) -> None:
    code = f"""
import sys
from kldiv_cli.__main__ import main
assert main(["baseline", *{arguments!r}]) == 0
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: kldiv baseline ")
    loaded = set(done.stderr.split())
    assert {"numpy", "h5py", "rich.console", "rich.markdown"}.isdisjoint(loaded)
    assert ("kldiv_cli.cli.baseline" in loaded) is (len(arguments) == 2)


def test_showing_a_baseline_in_a_pipe_loads_neither_hdf5_nor_rich(baseline: Path) -> None:
    code = """
import sys
from kldiv_cli.__main__ import main
assert main(["baseline", "show", "b.json"]) == 0
print(*sys.modules, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"h5py", "rich.console"}.isdisjoint(done.stderr.split())


def test_the_group_alone_shows_its_help(kldiv: Kldiv) -> None:
    run = kldiv("baseline")
    assert run.code == 2
    assert run.out + run.err == kldiv("baseline", "--help").out


@pytest.mark.skipif(CONSOLE_SCRIPT is None, reason="not installed")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("kldiv base", ["baseline"]),
        ("kldiv baseline ", ["record", "update", "show", "suggest"]),
        ("kldiv baseline s", ["show", "suggest"]),
        ("kldiv baseline update --ye", ["--yes"]),
        ("kldiv baseline suggest --", ["--sigmas", "--floor", "--statistic", "--debug", "--help"]),
        ("kldiv baseline show --format j", ["json", "jsonl"]),
    ],
)
def test_the_shell_is_answered_with_what_completes_a_word(words: str, completed: list[str]) -> None:
    assert CONSOLE_SCRIPT is not None
    done = subprocess.run(
        [CONSOLE_SCRIPT],
        env={
            **os.environ,
            "_KLDIV_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        },
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == completed
