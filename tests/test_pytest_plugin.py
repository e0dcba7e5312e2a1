"""The fixture `kldiv_check` in test suites of others: real runs of pytest."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

import kldiv_cli.report.gate  # noqa: F401 - what a run inside this one imports, it forgets
from kldiv_cli.pair import OPTIONS

pytest_plugins = ["pytester"]

PLAIN = ("-W", "error", "-p", "no:hypothesispytest")
Runs = Callable[..., pytest.RunResult]

HEAD = """\
import numpy as np

rng = np.random.default_rng(3)
P = rng.dirichlet(np.full(7, 2.0), 40)
Z = np.log(P) + rng.normal(0, {noise}, P.shape)

"""
HELD = """\
def test_held(kldiv_check):
    kldiv_check(Z, P, limits=["distmean < baseline * 1.1"], log_softmax=-1)
"""
HELD_ID = "test_it.py::test_held"


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Write a test file and run it, warnings being errors."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run_tests(text: str, *arguments: str, noise: float = 0.1) -> pytest.RunResult:
        pytester.makepyfile(test_it=HEAD.format(noise=noise) + text)
        return pytester.runpytest_inprocess(*PLAIN, *arguments)

    return run_tests


def stored(path: Path) -> Any:
    return json.loads(path.read_text())["pairs"]


def test_outputs_within_their_limits_pass_and_the_result_is_returned(run: Runs) -> None:
    result = run("""\
def test_it(kldiv_check):
    checked = kldiv_check(Z, P, limits=["distmean < 1", "p99.97 < 1", "top1 > 0.5"], log_softmax=-1)
    assert checked.status == "passed"
    assert [verdict.passed for verdict in checked.verdicts] == [True, True, True]
""")
    result.assert_outcomes(passed=1)


def test_a_failure_shows_the_table_the_worst_and_what_was_found_and_no_traceback(run: Runs) -> None:
    result = run("""\
def test_it(kldiv_check):
    P[5] = np.nan
    kldiv_check(Z, P, limits=["distmean < 1e-3", "p50 < 9"], log_softmax=-1)
    print("never reached")
""")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "1 pair: 1 failed",
            "*no nan-terms*",
            "*distmean < 1e-3*",
            "worst*",
            "error: 7 terms nan*allow nan-terms*",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")
    result.stdout.no_fnmatch_line("never reached")


ERRORS = [
    ('kldiv_check(Z, P[1:], limits=["distmean < 1"], log_softmax=-1)', "*expected equal shapes*"),
    ('kldiv_check("absent.npy", P, limits=["distmean < 1"], log_softmax=-1)', "*absent.npy: no such file*"),
    ('kldiv_check(Z, P, limits=["distmean < 1"], log_softmx=-1)', "*log_softmx: there is no such option*"),
    ('kldiv_check(Z, P, limits=["distmean < 1"], histogram=True)', "*histogram: there is no such option*"),
    ("kldiv_check(Z, P, limits=[], log_softmax=-1)", "*expected at least one in a list*"),
    ('kldiv_check(Z, P, limits="distmean < baseline")', "*expected at least one in a list*"),
    ('kldiv_check(Z, P, limits=["distmeen < 1"])', "*no statistic 'distmeen'*"),
    ('kldiv_check(Z, P, limits=["distmean <"])', "*column 11: found the end*"),
    ('kldiv_check(Z, P, limits=["distmean < 1"], allow=["nan"])', "*there is no such finding*"),
    ('kldiv_check(Z, P, limits=["distmean < baseline"], log_softmax=-1)', "*needs a baseline*"),
    ('kldiv_check(Z, P, limits=["distmean < 1"], log_softmax=-1, workers=0)', "*workers 0*"),
]


@pytest.mark.parametrize(("call", "said"), ERRORS)
def test_what_can_not_be_checked_fails_in_one_line(run: Runs, call: str, said: str) -> None:
    result = run(f"def test_it(kldiv_check):\n    {call}\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"kldiv_check: {said}"])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_without_limits_there_is_no_check(run: Runs) -> None:
    result = run("def test_it(kldiv_check):\n    kldiv_check(Z, P, log_softmax=-1)\n")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*missing 1 required keyword-only argument: 'limits'*"])


def test_limits_and_allowed_findings_may_come_from_generators(run: Runs, pytester: pytest.Pytester) -> None:
    text = """\
def test_it(kldiv_check):
    limits = (f"{name} < BOUND" for name in ("distmean", "p99"))
    kldiv_check(Z, Z, limits=limits, allow=iter(["identical"]), log_softmax=-1, targets_are="logits")
"""
    update = ("--kldiv-baseline", "base.json", "--kldiv-update")
    run(text.replace("BOUND", "-1e-9")).assert_outcomes(failed=1)
    run(text.replace("BOUND", "baseline + 1e-9"), *update).assert_outcomes(passed=1)
    assert "test_it.py::test_it" in stored(pytester.path / "base.json")


def test_every_option_of_a_pair_is_one_of_the_fixture(run: Runs, tmp_path: Path) -> None:
    values = {
        "loss": "bce", "log_softmax": -1, "predictions_are": "logits", "targets_are": "probs",
        "log_target": False, "axis": -1, "weight": None, "pos_weight": None, "temperature": 2.0,
        "zero_policy": "torch", "broadcast": False, "by_target": True, "mask": None, "ignore_value": -1,
        "trim_axis": False, "quantiles": [0.25], "worst": 2, "blocks_of": 4, "allow_external": True,
        "top1": False,
    }  # fmt: skip
    assert values.keys() == OPTIONS.keys()
    result = run(f"""\
def test_it(kldiv_check):
    kldiv_check(Z, P, limits=["mean < 9", "by_target.between.mean < 9", "p25 < 9"], workers=1, **{values!r})
""")
    result.assert_outcomes(passed=1)


def test_arrays_and_files_may_be_mixed(run: Runs, pytester: pytest.Pytester) -> None:
    result = run("""\
def test_it(kldiv_check, tmp_path):
    np.save(tmp_path / "z.npy", Z)
    np.save("p.npy", P)
    for z in (Z, Z.tolist(), tmp_path / "z.npy", str(tmp_path / "z.npy")):
        for p in (P, "p.npy", "p.npy::[:]"):
            kldiv_check(z, p, limits=["distmean < 1"], log_softmax=-1)
""")
    result.assert_outcomes(passed=1)


# Baselines


def test_a_baseline_is_written_on_update_and_only_then_and_held_to_afterwards(
    run: Runs, pytester: pytest.Pytester
) -> None:
    path = pytester.path / "base.json"
    missing = run(HELD, "--kldiv-baseline", "base.json")
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines(["kldiv_check: *base.json: no such baseline*"])
    assert not path.exists()

    run(HELD, "--kldiv-baseline", "base.json", "--kldiv-update").assert_outcomes(passed=1)
    before = path.read_bytes()
    assert list(stored(path)) == [HELD_ID]
    run(HELD, "--kldiv-baseline", "base.json").assert_outcomes(passed=1)

    worse = run(HELD, "--kldiv-baseline", "base.json", noise=0.5)
    worse.assert_outcomes(failed=1)
    worse.stdout.fnmatch_lines(["*distmean < baseline [*] 1.1*", "worst*", "*kl*baseline*now*"])
    assert path.read_bytes() == before

    run(HELD, "--kldiv-baseline", "base.json", "--kldiv-update", noise=0.5).assert_outcomes(passed=1)
    assert path.read_bytes() != before
    run(HELD, "--kldiv-baseline", "base.json", noise=0.5).assert_outcomes(passed=1)


def test_the_baseline_of_the_ini_file_lies_beside_it_wherever_pytest_is_called(
    run: Runs, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\nkldiv_baseline = stored/base.json\n")
    (pytester.path / "stored").mkdir()
    (pytester.path / "elsewhere").mkdir()
    run(HELD, "--kldiv-update").assert_outcomes(passed=1)
    assert list(stored(pytester.path / "stored/base.json")) == [HELD_ID]
    monkeypatch.chdir(pytester.path / "elsewhere")
    ini = ("-c", "../tox.ini", "--rootdir", "..")
    result = pytester.runpytest_inprocess(*PLAIN, *ini, "../test_it.py")
    result.assert_outcomes(passed=1)
    option = pytester.runpytest_inprocess(
        *ini, "../test_it.py", "--kldiv-baseline", "own.json", "--kldiv-update"
    )
    option.assert_outcomes(passed=1)
    assert (pytester.path / "elsewhere/own.json").exists()


def test_an_update_keeps_what_the_file_has_of_tests_that_did_not_run(
    run: Runs, pytester: pytest.Pytester
) -> None:
    both = HELD + HELD.replace("test_held", "test_other")
    base = ("--kldiv-baseline", "base.json")
    run(both, *base, "--kldiv-update").assert_outcomes(passed=2)
    before = stored(pytester.path / "base.json")
    run(both, *base, "--kldiv-update", "-k", "other", noise=0.5).assert_outcomes(passed=1, deselected=1)
    after = stored(pytester.path / "base.json")
    assert list(after) == [HELD_ID, "test_it.py::test_other"]
    assert after[HELD_ID] == before[HELD_ID]
    assert after["test_it.py::test_other"] != before["test_it.py::test_other"]


def test_an_update_keeps_what_another_run_wrote_meanwhile(run: Runs, pytester: pytest.Pytester) -> None:
    base = ("--kldiv-baseline", "base.json")
    run(HELD, *base, "--kldiv-update").assert_outcomes(passed=1)
    text = """\
def test_new(kldiv_check):
    import pathlib
    kldiv_check(Z, P, limits=["distmean < baseline * 1.1"], log_softmax=-1)
    path = pathlib.Path("base.json")
    path.write_text(path.read_text().replace("test_held", "test_meanwhile"))
"""
    run(text, *base, "--kldiv-update").assert_outcomes(passed=1)
    assert stored(pytester.path / "base.json").keys() == {
        "test_it.py::test_meanwhile",
        "test_it.py::test_new",
    }


def test_an_update_records_what_limits_name(run: Runs, pytester: pytest.Pytester) -> None:
    text = HELD.replace("distmean < baseline * 1.1", "p99.97 <= baseline.p99.98")
    base = ("--kldiv-baseline", "base.json")
    run(text, *base, "--kldiv-update").assert_outcomes(passed=1)
    assert {"p99.97", "p99.98"} <= stored(pytester.path / "base.json")[HELD_ID]["statistics"]["kl"].keys()
    run(text, *base).assert_outcomes(passed=1)


def test_an_update_takes_workers_and_memory_as_a_check_does(run: Runs) -> None:
    text = HELD.replace("log_softmax", "workers=1, memory=1 << 25, log_softmax")
    run(text, "--kldiv-baseline", "base.json", "--kldiv-update").assert_outcomes(passed=1)
    run(text, "--kldiv-baseline", "base.json").assert_outcomes(passed=1)


def test_an_update_does_not_accept_what_fails_any_check(run: Runs, pytester: pytest.Pytester) -> None:
    result = run(HELD.replace("Z,", "Z * np.nan,"), "--kldiv-baseline", "base.json", "--kldiv-update")
    result.assert_outcomes(failed=1)
    assert not (pytester.path / "base.json").exists()


def test_a_check_without_a_baseline_in_its_limits_is_not_recorded(
    run: Runs, pytester: pytest.Pytester
) -> None:
    text = HELD.replace("baseline * 1.1", "1")
    run(text, "--kldiv-baseline", "base.json", "--kldiv-update").assert_outcomes(passed=1)
    assert not (pytester.path / "base.json").exists()


TWICE = HELD + HELD.splitlines()[1] + "\n"
NAMED = """\
def test_held(kldiv_check):
    for name in ("one", "two"):
        kldiv_check(Z, P, limits=["distmean < baseline * 1.1"], log_softmax=-1, name=name)
"""


def test_two_checks_of_one_name_are_refused_when_recorded(run: Runs, pytester: pytest.Pytester) -> None:
    base = ("--kldiv-baseline", "base.json")
    result = run(TWICE, *base, "--kldiv-update")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [f"kldiv_check: {HELD_ID}: is checked already in this test; give each*name=*"]
    )
    run(NAMED, *base, "--kldiv-update").assert_outcomes(passed=1)
    assert {"one", "two"} <= stored(pytester.path / "base.json").keys()
    run(NAMED, *base).assert_outcomes(passed=1)


@pytest.mark.parametrize("text", ["", "{}", "no json"])
def test_a_baseline_that_is_damaged_fails_the_test_and_is_never_written_over(
    run: Runs, pytester: pytest.Pytester, text: str
) -> None:
    path = pytester.path / "base.json"
    path.write_text(text)
    for update in ((), ("--kldiv-update",)):
        result = run(HELD, "--kldiv-baseline", "base.json", *update)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["kldiv_check: *base.json: *"])
        result.stderr.no_fnmatch_line("*INTERNALERROR*")
        assert path.read_text() == text


def test_a_baseline_that_can_not_be_written_makes_the_run_fail(run: Runs) -> None:
    result = run(HELD, "--kldiv-baseline", "absent/base.json", "--kldiv-update")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*kldiv_check: kldiv-baseline*absent/base.json*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


def test_an_update_wants_to_know_the_file(run: Runs) -> None:
    result = run(HELD, "--kldiv-update")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --kldiv-update: which file? say --kldiv-baseline FILE"])


def test_several_processes_check_but_do_not_update(run: Runs, pytester: pytest.Pytester) -> None:
    base = ("--kldiv-baseline", "base.json")
    refused = run(HELD, *base, "--kldiv-update", "-n", "2")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(["ERROR: --kldiv-update: several processes would each write the file*"])
    assert not (pytester.path / "base.json").exists()
    run(HELD, *base, "--kldiv-update", "-n", "0").assert_outcomes(passed=1)
    run(HELD, *base, "-n", "2").assert_outcomes(passed=1)
    run(HELD, *base, "-n", "2", noise=0.5).assert_outcomes(failed=1)


# What it costs those who do not use it


def test_loading_the_plugin_imports_neither_numpy_nor_rich(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""\
import sys

def test_it(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("kldiv")
    assert {"numpy", "rich", "typer", "h5py", "kldiv_cli.gate"}.isdisjoint(sys.modules)

def test_the_fixture_alone(kldiv_check):
    assert "numpy" not in sys.modules
""")
    # Others import what they like.
    others = [entry.name for entry in entry_points(group="pytest11") if entry.name != "kldiv"]
    only = [argument for name in ("cacheprovider", *others) for argument in ("-p", f"no:{name}")]
    pytester.runpytest_subprocess(*only).assert_outcomes(passed=2)


def test_the_fixture_and_its_options_are_told_by_pytest(pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess("--help").stdout.fnmatch_lines(
        ["kldiv:", "*--kldiv-baseline=FILE*", "*--kldiv-update*", "*kldiv_baseline*"]
    )
    pytester.runpytest_inprocess("--fixtures").stdout.fnmatch_lines(
        ["kldiv_check*", "*Fail the test where a*"]
    )


def test_an_update_says_what_was_accepted_each_number_before_and_after(
    run: Runs, pytester: pytest.Pytester
) -> None:
    update = ("--kldiv-baseline", "base.json", "--kldiv-update")
    run(HELD, *update)
    again = run(HELD.replace("kldiv_check(Z,", "kldiv_check(2 * Z,"), *update)
    again.stdout.fnmatch_lines(["*kldiv_check: updated *base.json*", "*distmean*→*%"])
    run(HELD).stdout.no_fnmatch_line("*updated*")
