"""`kldiv check` as CI calls it: every way to pass by accident does not, and what it says instead."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gates import Kldiv, Run, kl_of, outputs, save_broken, save_outputs

from kldiv_cli.__main__ import main
from kldiv_cli.findings import IDS

SAMPLES = Path(__file__).parent.parent / "sample_data"
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def kldiv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kldiv:
    """Run `kldiv` in this process, beside a model's outputs; what `main` sets for its process is put back."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)
    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    save_outputs()

    def run(*arguments: str) -> Run:
        code = main(list(arguments))
        return Run(code, *capsys.readouterr())

    return run


def refused(run: Run) -> str:
    """The one line of what could not even be begun."""
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("kldiv: error: ")
    assert run.err.count("\n") == 1
    return run.err.removeprefix("kldiv: error: ").rstrip("\n")


# One pair


GOOD = "z.npy p.npy --log-softmax -1"
LIMIT = ("--limit", "distmean < 100")
"""Which all would keep that gives a number at all."""


def test_outputs_as_they_should_be_pass_in_silence(kldiv: Kldiv) -> None:
    run = kldiv("check", *shlex.split(GOOD), *LIMIT, "--json")
    assert (run.code, run.err) == (0, "")
    (result,) = run.record["results"]
    assert (result["status"], result["findings"]) == ("passed", [])
    assert result["statistics"]["kl"]["distmean"] == pytest.approx(kl_of(*outputs()).mean())


FOUND = [
    ("nan.npy p.npy", "nan-terms"),
    ("inf.npy p.npy", "predictions-logits"),
    ("inf.npy p.npy", "negative-kl"),
    ("inf.npy eye_p.npy", "nan-terms"),
    ("minus_inf.npy p.npy", "infinite-terms"),
    ("nan_z.npy p.npy --log-softmax -1", "nan-terms"),
    ("z.npy nan_p.npy --log-softmax -1", "nan-terms"),
    ("z.npy inf_p.npy --log-softmax -1", "infinite-terms"),
    ("z.npy below_p.npy --log-softmax -1", "nan-terms"),
    ("nan_z.npy labels.npy --log-softmax -1 --targets-are labels", "nan-terms"),
    ("nan.npy labels.npy --targets-are labels", "nan-terms"),
    ("nan_p.npy p.npy --predictions-are probs", "nan-terms"),
    ("z.npy bits.npy --loss bce --predictions-are logits --weight weight_nan.npy", "nan-terms"),
    ("huge_z.npy bits.npy --loss bce --predictions-are logits", "nonfinite"),
    ("no_rows.npy no_rows_p.npy --log-softmax -1", "empty"),
    ("no_classes.npy no_classes.npy --log-softmax -1", "empty"),
    ("'z.npy::[0:0]' 'p.npy::[5:5]' --log-softmax -1", "empty"),
    ("z.npy p.npy --log-softmax -1 --mask mask_0.npy", "empty"),
    ("z.npy ignored.npy --log-softmax -1 --targets-are labels --ignore-value -100", "empty"),
    ("p.npy p.npy --predictions-are probs", "identical"),
    ("q.npy q_copy.npy --predictions-are probs", "identical"),
    ("q.npy q.h5::/q --predictions-are probs", "identical"),
    ("q_float32.npy q_float32_wide.npy --predictions-are probs", "identical"),
    ("bits.npy bits.npy --loss bce", "identical"),
    ("log_p.npy p.npy", "zero-loss"),
    ("z.npy zero_p.npy --log-softmax -1", "zero-loss"),
    ("one_class.npy one_class_p.npy --log-softmax -1", "zero-loss"),
    ("q.npy bits.npy --loss bce --weight weight_0.npy", "zero-loss"),
    ("q.npy bits.npy --loss bce --weight weight_below.npy", "negative-bce"),
    ("z.npy bits.npy --loss bce --predictions-are logits --pos-weight weight_below.npy", "negative-bce"),
    ("z.npy signs.npy --loss bce --predictions-are logits", "targets-outside"),
    ("q.npy bits.npy --loss bce --predictions-are logits", "sigmoid-of-probs"),
    ("q.npy p.npy", "predictions-probs"),
    ("q.npy p.npy", "negative-kl"),
    ("q.npy p.npy --log-softmax -1", "softmax-of-probs"),
    ("high_z.npy p.npy", "predictions-logits"),
    ("heavy_log_q.npy p.npy", "predictions-unnormalised"),
    ("z.npy heavy_p.npy --log-softmax -1", "targets-unnormalised"),
    ("z.npy z.npy --log-softmax -1", "targets-logits"),
    ("z.npy log_p.npy --log-softmax -1", "targets-log-probs"),
    ("z.npy p.npy --log-softmax -1 --log-target", "targets-probs"),
    ("z.npy p.npy --log-softmax -1 --targets-are logits", "softmax-of-target-probs"),
    ("log_q.npy p.npy --axis 0", "wrong-axis"),
    ("z.npy p.npy --log-softmax 0", "wrong-axis"),
    ("z.npy padded_p.npy --log-softmax -1", "targets-padding"),
    ("padded_z.npy p.npy --log-softmax -1", "predictions-padding"),
]
"""What gives a number, or none, that says nothing of a model; and the finding that fails it."""


@pytest.mark.parametrize(("typed", "finding"), FOUND, ids=[f"{f} {t}" for t, f in FOUND])
def test_a_number_that_says_nothing_of_a_model_fails_whatever_the_limit(
    kldiv: Kldiv, typed: str, finding: str
) -> None:
    save_broken()
    statistic = "mean" if "bce" in typed else "distmean"
    run = kldiv("check", *shlex.split(typed), "--limit", f"{statistic} < 1e300", "--limit", "elements >= 0")
    assert run.code == 1
    assert f"no {finding}" in run.out
    assert f"to let it pass, allow {finding}" in run.err
    assert "1 pair: 1 failed" in run.out


def test_each_finding_that_fails_a_check_is_in_the_table() -> None:
    notes = {"saturated", "low-precision", "dtype-changed", "predictions-unchanged", "zero-terms"}
    doubts = {"misaligned", "clamped-terms", "which-mean"}
    of_compare = {"infinite-kl", "nan-kl"}
    assert {finding for _, finding in FOUND} | {"inputs-changed"} == IDS - notes - doubts - of_compare


@pytest.mark.parametrize(("typed", "finding"), FOUND, ids=[f"{f} {t}" for t, f in FOUND])
def test_what_is_allowed_by_name_is_still_told_and_passes_unless_its_limit_fails(
    kldiv: Kldiv, typed: str, finding: str
) -> None:
    save_broken()
    command = ("check", *shlex.split(typed), "--limit", "elements >= 0", "--format", "json")
    (first,) = kldiv(*command).record["results"]
    failing = {found["id"] for found in first["findings"] if found["severity"] == "error"}
    assert finding in failing
    allowed = [option for id in sorted(failing) for option in ("--allow", id)]
    run = kldiv(*command, *allowed)
    assert run.code == 0
    (result,) = run.record["results"]
    assert failing <= {found["id"] for found in result["findings"] if found["severity"] == "warning"}
    assert run.err.count("warning: ") >= len(failing)
    others = [option for id in sorted(failing - {finding}) for option in ("--allow", id)]
    assert kldiv(*command, *others).code == 1
    assert kldiv(*command, *allowed, "--limit", "elements < 0").code == 1


@pytest.mark.parametrize("limit", ["distmean < 1e-3", "p99.9 < 1e-3", "sum < 1e-3", "distmean <= 0"])
def test_rounding_that_moves_kl_below_0_by_more_than_the_limit_allows_above_fails(
    kldiv: Kldiv, limit: str
) -> None:
    save_broken()
    arguments = ("check", "coarse.npy", "coarse_p.npy", "--limit")
    run = kldiv(*arguments, limit)
    assert run.code == 1
    assert "no negative-kl" in run.out
    assert "which is more than a limit allows; save the outputs as float32" in run.err
    assert kldiv(*arguments, limit, "--allow", "negative-kl").code == 0
    wide = kldiv(*arguments, "distmean < 1e-2")
    assert wide.code == 0
    assert "note: KL below 0" in wide.err


def test_kl_below_0_by_the_rounding_of_float64_passes_a_limit_of_0(kldiv: Kldiv) -> None:
    z, p = outputs()
    z[:20] = np.log(p[:20]) + 3.3
    np.save("z.npy", z)
    run = kldiv("check", *shlex.split(GOOD), "--limit", "minimum <= 0", "--json")
    assert (run.code, run.err) == (0, "")
    ((limit,),) = (result["limits"] for result in run.record["results"])
    assert -1e-15 < limit["obtained"] < 0


COULD_NOT = [
    ("absent.npy p.npy --log-softmax -1", "absent.npy: no such file"),
    ("z.npy absent.npy --log-softmax -1", "absent.npy: no such file"),
    ("z.npy p.npy --log-softmax -1 --mask absent.npy", "absent.npy: no such file"),
    ("z.npy '' --log-softmax -1", "no such file"),
    ("'' p.npy --log-softmax -1", "no such file"),
    ("zero_bytes.npy p.npy", "zero_bytes.npy: empty file (0 bytes)"),
    ("cut.npy p.npy --log-softmax -1", "cut.npy: "),
    ("text.npy p.npy --log-softmax -1", "text.npy: "),
    ("directory p.npy --log-softmax -1", "directory: a directory, expected a regular file"),
    ("z.npy q.h5 --log-softmax -1", "name one as q.h5::/"),
    ("z.npy q.h5::/absent --log-softmax -1", "no dataset"),
    ("words.npy p.npy --log-softmax -1", "expected real numbers"),
    ("complex.npy p.npy --log-softmax -1", "expected real numbers"),
    ("z.npy short_p.npy --log-softmax -1", "expected equal shapes"),
    ("z.npy wide_p.npy --log-softmax -1", "expected equal shapes"),
    ("z.npy transposed_p.npy --log-softmax -1", "expected equal shapes"),
    ("z.npy p.npy --log-softmax -1 --mask mask_short.npy", "mask_short.npy"),
    ("z.npy p.npy --log-softmax -1 --mask mask_2.npy", "mask_2.npy"),
    ("z.npy p.npy --log-softmax 2", "axis 2"),
    ("z.npy wrong_labels.npy --log-softmax -1 --targets-are labels", "labels outside 0 to 6"),
    ("z.npy ignored.npy --log-softmax -1 --targets-are labels", "say --ignore-value -100"),
    ("z.npy bits.npy --loss bce", "probabilities outside [0, 1]"),
    ("nan_p.npy bits.npy --loss bce", "probabilities outside [0, 1]"),
    ("q.npy nan_p.npy --loss bce", "targets outside [0, 1]"),
]
"""Inputs that can't be computed, and what is said of them."""


@pytest.mark.parametrize(("typed", "said"), COULD_NOT, ids=[typed for typed, _ in COULD_NOT])
def test_what_can_not_be_computed_is_an_error_and_no_allowance_lets_it_pass(
    kldiv: Kldiv, typed: str, said: str
) -> None:
    save_broken()
    allowed = [option for id in sorted(IDS) for option in ("--allow", id)]
    run = kldiv("check", *shlex.split(typed), "--limit", "elements >= 0", *allowed)
    assert run.code == 2
    assert said in run.err
    assert "1 pair: 1 could not be computed" in run.out
    assert "passed" not in run.out


REFUSED = [
    ("", "limit: none given, so the check would always pass"),
    ("--limit ''", "column 1: found the end, expected the name of a statistic"),
    ("--limit ' '", "found the end, expected the name of a statistic"),
    ("--limit 'distmean'", "column 9: found the end"),
    ("--limit 'distmean < '", "found the end"),
    ("--limit 'distmean < 1 %'", "write 1 % as 0.01"),
    ("--limit 'distmean = 1'", "write '=='"),
    ("--limit 'distmean < 1,5'", "write a decimal point"),
    ("--limit '1 > distmean'", "write the statistic first"),
    ("--limit '0 < distmean < 1'", "write the statistic first"),
    ("--limit 'distmean < 1 < 2'", "write two limits"),
    ("--limit 'distmean < distmean'", "write baseline for its stored value"),
    ("--limit 'distmean < inf'", "no statistic 'inf'"),
    ("--limit 'distmean < nan'", "no statistic 'nan'"),
    ("--limit 'distmean < 1e999'", "expected a number below 1.8e308"),
    ("--limit 'distmeen < 1'", "no statistic 'distmeen'; did you mean 'distmean'?"),
    ("--limit 'distmean < 2 * meen'", "no statistic 'meen'; did you mean 'mean'?"),
    ("--limit 'p101 < 1'", "no statistic 'p101'"),
    ("--limit 'p99.90 < 1'", "no statistic 'p99.90'; did you mean 'p99.9'?"),
    ("--limit 'bce.mean < 1'", "no statistic 'bce.mean'"),
    ("--limit 'blocks.standard_error < 1'", "no statistic 'blocks.standard_error'"),
    ("--limit 'by_target.one.mean < 1'", "no statistic 'by_target.one.mean'"),
    ("--limit 'distmean < baseline'", "needs a baseline; say which with --baseline FILE"),
    ("--limit 'distmean < baseline.mean'", "needs a baseline"),
    ("--limit 'distmean < 1' --limit 'mean < baseline'", "needs a baseline"),
    ("--limit 'distmean < 1' --allow nan-term", "no such finding; did you mean 'nan-terms'"),
    ("--limit 'distmean < 1' --allow ''", "allow '': there is no such finding"),
    ("--limit 'distmean < 1' --allow identical,nan-terms", "no such finding"),
    ("--limit 'distmean < 1' --baseline absent.json", "absent.json: no such baseline"),
    ("--limit 'distmean < 1' --baseline ''", "no such baseline"),
    ("--limit 'distmean < 1' --pair z", "pair: chooses from a suite"),
    ("--limit 'distmean < 1' --limits 'p99 < 1'", "No such option: --limits"),
    ("--limit 'distmean < 1' --precission 3", "No such option: --precission"),
    ("--limit 'distmean < 1' more.npy", "unexpected extra argument"),
    ("--limit", "requires an argument"),
    ("--limit 'distmean < 1' --quantiles 1.5", "quantiles 1.5"),
    ("--limit 'distmean < 1' --axis 0", "axis 0: contradicts log-softmax along -1"),
    ("--limit 'distmean < 1' --workers 0", "--workers"),
]
"""What is typed after a pair that is as it should be, and the one line that refuses it."""


@pytest.mark.parametrize(("typed", "said"), REFUSED, ids=[typed or "nothing" for typed, _ in REFUSED])
def test_limits_and_options_that_are_wrong_are_refused_before_anything_is_read(
    kldiv: Kldiv, typed: str, said: str
) -> None:
    assert said in refused(kldiv("check", *shlex.split(GOOD), *shlex.split(typed)))


def test_limits_of_no_finite_bound_are_errors_and_no_pass(kldiv: Kldiv) -> None:
    for limit in ("distmean < 1 / (minimum - minimum)", "distmean < 1e300 * 1e300", "distmean < -1 / 0"):
        run = kldiv("check", *shlex.split(GOOD), "--limit", limit)
        assert run.code == 2
        assert "expected a finite bound" in run.err


def test_bce_has_no_top_class_to_hold_to_a_limit(kldiv: Kldiv) -> None:
    run = kldiv("check", "q.npy", "bits.npy", "--loss", "bce", "--limit", "top1 >= 0")
    assert "no statistic 'top1'" in refused(run)


def test_a_limit_on_what_no_element_was_of_fails(kldiv: Kldiv) -> None:
    arguments = ("q.npy", "bits.npy", "--loss", "bce", "--by-target", "--limit")
    assert kldiv("check", *arguments, "by_target.one.mean < 100").code == 0
    for limit in ("by_target.between.mean < 100", "by_target.between.mean >= 0"):
        run = kldiv("check", *arguments, limit)
        assert run.code == 1
        assert "nan" in run.out


def test_a_file_alone_is_no_suite_not_even_one_without_a_name(kldiv: Kldiv) -> None:
    Path("pyproject.toml").write_text(
        '[tool.kldiv.pairs.a]\npredictions = "z.npy"\ntargets = "p.npy"\nlog_softmax = -1\n'
        'limits = ["distmean < 1"]\n'
    )
    assert kldiv("check").code == 0
    assert "z.npy: alone it would be a suite" in refused(kldiv("check", "z.npy"))
    assert "'': alone it would be a suite" in refused(kldiv("check", ""))
    assert "--limit: is for a single pair" in refused(kldiv("check", *LIMIT))


def test_mean_and_batchmean_of_kl_warn_that_they_are_not_the_mean_divergence(kldiv: Kldiv) -> None:
    run = kldiv("check", *shlex.split(GOOD), "--limit", "mean < 1")
    assert run.code == 0
    assert run.err == (
        "warning: mean divides by all 280 elements, as in PyTorch; the mean KL divergence of the "
        "40 distributions is distmean\n"
    )
    assert kldiv("check", *shlex.split(GOOD), "--limit", "batchmean < 1").err == ""
    bce = kldiv("check", "q.npy", "bits.npy", "--loss", "bce", "--limit", "mean < 1")
    assert (bce.code, bce.err) == (0, "")


# A suite


SUITE = """\
[defaults]
log_softmax = -1
limits = ["distmean < 1"]

[pairs.one]
predictions = "z.npy"
targets = "p.npy"
"""
GLOB = """\
[defaults]
log_softmax = -1
limits = ["distmean < 1"]

[pairs.all]
predictions = "out/*.npy"
targets = "ref/{stem}.npy"
"""


def suite(text: str, **files: str) -> str:
    Path("suite.toml").write_text(text)
    for directory in ("out", "ref"):
        Path(directory).mkdir(exist_ok=True)
    z, p = outputs()
    for name in ("a", "b"):
        np.save(f"out/{name}.npy", z)
        np.save(f"ref/{name}.npy", p)
    return "suite.toml"


def test_the_suites_of_the_following_tests_pass_as_they_are(kldiv: Kldiv) -> None:
    assert kldiv("check", suite(SUITE)).code == 0
    run = kldiv("check", suite(GLOB))
    assert run.code == 0
    assert "2 pairs: 2 passed" in run.out


TWISTED = [
    ("no limit", SUITE.replace("limits", "#"), "pair 'one': has no limit, so it would always pass"),
    ("empty limits", SUITE.replace('["distmean < 1"]', "[]"), "has no limit"),
    ("an empty limit", SUITE.replace("distmean < 1", ""), "found the end"),
    ("a malformed limit", SUITE.replace("< 1", "<"), "pair 'one': limit 'distmean <', column 11"),
    ("an unknown statistic", SUITE.replace("distmean", "distmeen"), "no statistic 'distmeen'"),
    ("an infinite limit", SUITE.replace("< 1", "< inf"), "no statistic 'inf'"),
    ("limits as text", SUITE.replace('["distmean < 1"]', '"distmean < 1"'), "limits"),
    ("a key misspelt", SUITE.replace("limits", "limit"), "did you mean 'limits'?"),
    ("an option misspelt", SUITE.replace("log_softmax", "log_softmx"), "did you mean 'log_softmax'?"),
    ("a table misspelt", SUITE.replace("[pairs.one]", "[pair.one]"), "did you mean 'pairs'?"),
    ("a table unknown", SUITE + "\n[others.one]\n", "others"),
    ("a key of a pair", SUITE + 'limt = ["p99 < 1"]\n', "did you mean 'limits'?"),
    ("a key of a group", SUITE + 'group = "g"\n[groups.g]\nallows = []\n', "did you mean 'allow'?"),
    ("a group that is none", SUITE + 'group = "g"\n', "is no group"),
    ("a group of no pair", SUITE + '[groups.g]\nlimits = ["p99 < 0"]\n', "no pair is of this group"),
    ("a command of evaluate", SUITE + 'output = "map.npy"\n', "output"),
    ("an unknown finding", SUITE + 'allow = ["nan-term"]\n', "no such finding; did you mean 'nan-terms'"),
    ("a baseline wanted", SUITE.replace("< 1", "< baseline"), "needs a baseline"),
    ("a baseline that is not there", 'baseline = "absent.json"\n' + SUITE, "absent.json: no such baseline"),
    ("a baseline without a name", 'baseline = ""\n' + SUITE, "baseline"),
    ("no pairs", SUITE.split("[pairs")[0], "no pairs, expected at least one"),
    ("an empty table of pairs", SUITE.split("[pairs")[0] + "[pairs]\n", "no pairs"),
    ("nothing", "", "no pairs"),
    ("no targets", SUITE.replace("targets", "#"), "no targets"),
    ("no predictions", SUITE.replace("predictions", "#"), "no predictions"),
    ("one name twice", SUITE + '[pairs.one]\npredictions = "z.npy"\n', "expected TOML"),
    (
        "one name by a glob",
        GLOB + '[pairs."all/a"]\npredictions = "z.npy"\ntargets = "p.npy"\n',
        "second pair",
    ),
    ("no match", GLOB.replace("out/*", "outs/*"), "outs/*.npy"),
    ("an empty directory", GLOB.replace("out/*.npy", "out/*.npz"), "out/*.npz"),
    ("a partner elsewhere", GLOB.replace("ref/{stem}", "refs/{stem}"), "refs/a.npy"),
    ("bce and top1", SUITE.replace("log_softmax = -1", 'loss = "bce"').replace("distmean", "top1"), "'top1'"),
    ("two losses", SUITE.replace("log_softmax", 'loss = ["kl", "bce"]\nlog_softmax'), "kl.distmean"),
    ("no TOML", "predictions: z.npy", "expected TOML"),
]


@pytest.mark.parametrize(("text", "said"), [case[1:] for case in TWISTED], ids=[case[0] for case in TWISTED])
def test_a_suite_that_would_check_less_than_it_seems_to_is_refused(
    kldiv: Kldiv, text: str, said: str
) -> None:
    assert said in refused(kldiv("check", suite(text)))


@pytest.mark.parametrize("extra", ["out/c.npy", "ref/c.npy"])
def test_a_match_without_its_partner_is_refused_either_way(kldiv: Kldiv, extra: str) -> None:
    path = suite(GLOB)
    np.save(extra, outputs()[1])
    assert "c.npy" in refused(kldiv("check", path))


@pytest.mark.parametrize(
    "option",
    [
        "--limit 'p99 < 1'", "--limit ''", "--allow identical", "--name one", "--loss kl", "--loss bce",
        "--log-softmax -1", "--predictions-are probs", "--log-target", "--axis -1", "--zero-policy limit",
        "--temperature 1", "--mask mask.npy", "--ignore-value 0", "--quantiles 0.5", "--worst 3",
        "--by-target", "--trim-axis", "--broadcast", "--blocks-of 2", "--allow-external",
    ],
)  # fmt: skip
def test_an_option_of_a_pair_beside_a_suite_is_refused_not_passed_over(kldiv: Kldiv, option: str) -> None:
    typed = shlex.split(option)
    said = refused(kldiv("check", suite(SUITE), *typed))
    assert said.startswith(f"{typed[0]}: is for a single pair; with a suite say it in ")


def test_a_pattern_chooses_pairs_and_one_that_chooses_none_is_refused(kldiv: Kldiv) -> None:
    path = suite(GLOB)
    assert "1 pair: 1 passed" in kldiv("check", path, "--pair", "all/b").out
    assert "2 pairs: 2 passed" in kldiv("check", path, "--pair", "all/*").out
    for pattern in ("all/c", "", "b", "ALL/*"):
        said = refused(kldiv("check", path, "--pair", pattern))
        assert said == f"--pair {pattern!r}: no pair of suite.toml has such a name; there are all/a, all/b"


def test_without_arguments_a_pyproject_is_wanted_that_says_something_of_kldiv(kldiv: Kldiv) -> None:
    assert "no pyproject.toml here" in refused(kldiv("check"))
    Path("pyproject.toml").write_text("[tool.other]\n")
    assert "no table [tool.kldiv]" in refused(kldiv("check"))
    Path("pyproject.toml").write_text("[tool.kldiv]\n")
    assert "no pairs" in refused(kldiv("check"))


def test_a_suite_of_which_every_pair_fails_to_compute_is_an_error(kldiv: Kldiv) -> None:
    path = suite(GLOB)
    for name in ("a", "b"):
        np.save(f"ref/{name}.npy", outputs()[1][1:])
    run = kldiv("check", path)
    assert run.code == 2
    assert "2 pairs: 2 could not be computed" in run.out


def test_one_error_among_failures_and_passes_makes_2_and_the_worst_stand_first(kldiv: Kldiv) -> None:
    z, p = outputs()
    path = suite(GLOB)
    np.save("out/c.npy", 5 * z)
    np.save("ref/c.npy", p)
    failed = kldiv("check", path, "--json")
    assert failed.code == failed.record["exit_code"] == 1
    np.save("ref/b.npy", p[1:])
    run = kldiv("check", path, "--json")
    assert run.code == run.record["exit_code"] == 2
    assert [(r["pair"], r["status"]) for r in run.record["results"]] == [
        ("all/b", "error"),
        ("all/c", "failed"),
        ("all/a", "passed"),
    ]
    assert "expected equal shapes" in run.err


def test_a_pair_that_gets_nan_in_a_suite_fails_it(kldiv: Kldiv) -> None:
    path = suite(GLOB)
    np.save("out/b.npy", np.full_like(outputs()[0], np.nan))
    run = kldiv("check", path)
    assert run.code == 1
    assert "2 pairs: 1 failed, 1 passed" in run.out


# A baseline


HELD = ("--limit", "distmean < baseline * 1.1", "--baseline", "base.json")


@pytest.fixture
def recorded(kldiv: Kldiv) -> Kldiv:
    assert kldiv("baseline", "record", *shlex.split(GOOD), "--baseline", "base.json").code == 0
    return kldiv


def edited(edit: Edit) -> None:
    record = json.loads(Path("base.json").read_text())
    edit(record)
    Path("base.json").write_text(json.dumps(record))


def test_what_the_baseline_was_recorded_of_passes_with_a_note(recorded: Kldiv) -> None:
    run = recorded("check", *shlex.split(GOOD), *HELD)
    assert run.code == 0
    assert run.err.startswith("note: the predictions are those of the baseline, to the last element")


def test_targets_that_changed_since_the_baseline_fail_unless_allowed(recorded: Kldiv) -> None:
    z, p = outputs()
    other = np.roll(p, 1, axis=0)
    np.save("p.npy", other)
    np.save("z.npy", np.log(other) + (z - np.log(p)) / 2)
    run = recorded("check", *shlex.split(GOOD), *HELD)
    assert run.code == 1
    assert "no inputs-changed" in run.out
    assert "targets changed since the baseline was recorded" in run.err
    allowed = recorded("check", *shlex.split(GOOD), *HELD, "--allow", "inputs-changed")
    assert allowed.code == 0
    assert "warning: targets changed" in allowed.err


def test_a_mask_that_changed_since_the_baseline_fails(kldiv: Kldiv) -> None:
    masked = (*shlex.split(GOOD), "--mask", "mask.npy")
    assert kldiv("baseline", "record", *masked, "--baseline", "base.json").code == 0
    assert kldiv("check", *masked, *HELD).code == 0
    np.save("mask.npy", np.arange(40) < 1)
    run = kldiv("check", *masked, "--limit", "distmean < 100", "--baseline", "base.json")
    assert run.code == 1
    assert "mask changed since the baseline was recorded" in run.err


OTHER = [
    ("z.npy p.npy --log-softmax -1 --temperature 2", "recorded with temperature none, now 2"),
    ("z.npy p.npy --log-softmax -1 --trim-axis", "recorded with trim_axis false, now true"),
    ("z.npy p.npy --log-softmax -1 --zero-policy torch", "recorded with zero_policy limit, now torch"),
    ("z.npy p.npy --log-softmax -1 --mask mask.npy", "recorded with mask false, now true"),
    ("z.npy p.npy --log-softmax -1 --ignore-value 7", "recorded with ignore_value none, now 7"),
    ("z.npy p.npy --log-softmax -1 --blocks-of 4", "recorded with blocks_of none, now 4"),
    ("z.npy p.npy --log-softmax -1 --broadcast", "recorded with broadcast false, now true"),
    ("z.npy p.npy --log-softmax -1 --loss kl --loss bce", "recorded with loss kl, now kl and bce"),
    ("z.npy log_p.npy --log-softmax -1 --log-target", "recorded with targets_are probs, now log-probs"),
    ("log_q.npy p.npy --name z", "recorded with log_softmax true, now false"),
    ("z.npy p.npy --log-softmax 0", "recorded with axis 1, now 0"),
    ("'z.npy::[0:20]' 'p.npy::[0:20]' --log-softmax -1 --name z", "recorded of shape (40, 7), now (20, 7)"),
]


@pytest.mark.parametrize(("typed", "said"), OTHER, ids=[said for _, said in OTHER])
def test_a_baseline_of_other_settings_or_shapes_is_no_measure(recorded: Kldiv, typed: str, said: str) -> None:
    run = recorded("check", *shlex.split(typed), "--limit", "elements > 0", "--baseline", "base.json")
    assert run.code == 2
    assert f"base.json: z: {said}" in run.err
    assert "could not be computed" in run.out


def without_statistic(record: dict[str, Any]) -> None:
    del record["pairs"]["z"]["statistics"]["kl"]["distmean"]


def not_finite(value: Any) -> Edit:
    def edit(record: dict[str, Any]) -> None:
        record["pairs"]["z"]["statistics"]["kl"]["distmean"] = value

    return edit


DAMAGED: list[tuple[str, Edit]] = [
    (
        "its schema is \"kldiv-baseline/2\", and this kldiv reads 'kldiv-baseline/1'",
        lambda record: record.update(schema="kldiv-baseline/2"),
    ),
    ("schema", lambda record: record.update(schema="kldiv/1")),
    ("schema", lambda record: record.pop("schema")),
    ("has no pair 'z', it has no pairs", lambda record: record.update(pairs={})),
    ("has no pair 'z', it has 'y'", lambda record: record.update(pairs={"y": record["pairs"]["z"]})),
    ("pairs", lambda record: record.pop("pairs")),
    ("settings", lambda record: record["pairs"]["z"].pop("settings")),
    ("settings", lambda record: record["pairs"]["z"]["settings"].pop("temperature")),
    ("inputs", lambda record: record["pairs"]["z"]["inputs"].pop("targets")),
    ("sha256", lambda record: record["pairs"]["z"]["inputs"]["targets"].pop("sha256")),
    ("distmean", without_statistic),
    ("distmean", not_finite("Infinity")),
    ("distmean", not_finite(None)),
    ("distmean", not_finite("0.1")),
    ("statistics", lambda record: record["pairs"]["z"].update(statistics={})),
]


@pytest.mark.parametrize(("said", "edit"), DAMAGED)
def test_a_baseline_that_was_tampered_with_is_refused(recorded: Kldiv, said: str, edit: Edit) -> None:
    edited(edit)
    message = refused(recorded("check", *shlex.split(GOOD), *HELD))
    assert message.startswith("base.json: ")
    assert said in message


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "{", "\x00", '{"schema": "kldiv-baseline/1"}'])
def test_a_file_that_is_no_baseline_is_refused(recorded: Kldiv, text: str) -> None:
    Path("base.json").write_text(text)
    assert refused(recorded("check", *shlex.split(GOOD), *HELD)).startswith("base.json: ")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_stored_value_that_is_not_finite_is_no_bound(recorded: Kldiv, value: str) -> None:
    edited(not_finite(value))
    run = recorded("check", *shlex.split(GOOD), *HELD)
    assert run.code == 2
    assert "expected a finite number" in run.err


def test_a_pair_that_the_suite_lost_since_the_baseline_is_missed(kldiv: Kldiv) -> None:
    path = suite('baseline = "base.json"\n' + GLOB)
    assert kldiv("baseline", "record", path).code == 0
    assert kldiv("check", path).code == 0
    for directory in ("out", "ref"):
        Path(directory, "b.npy").unlink()
    assert "suite.toml: has no pair 'all/b', which base.json has" in refused(kldiv("check", path))
    assert "has no pair 'all/b'" in refused(kldiv("check", path, "--pair", "all/a"))
    for directory, array in zip(("out", "ref"), outputs(), strict=True):
        np.save(Path(directory, "b.npy"), array)
        np.save(Path(directory, "c.npy"), array)
    said = refused(kldiv("check", path))
    assert said.startswith(
        "suite.toml: pair 'all/c': base.json: has no pair 'all/c', it has 'all/a', 'all/b'"
    )


def test_nothing_is_written_by_a_check(recorded: Kldiv) -> None:
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    recorded("check", *shlex.split(GOOD), *HELD)
    recorded("check", *shlex.split(GOOD), "--limit", "distmean < baseline", "--baseline", "absent.json")
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


# From end to end, as CI runs it


def process(*arguments: str) -> Run:
    done = subprocess.run(
        [sys.executable, "-m", "kldiv_cli", *arguments], capture_output=True, text=True, check=False
    )
    return Run(done.returncode, done.stdout, done.stderr)


def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The digits' logits and probabilities, copied to the working directory."""
    monkeypatch.chdir(tmp_path)
    logits = np.load(SAMPLES / "digits_student_logits.npy")
    targets = np.load(SAMPLES / "digits_teacher_probs.npy")
    np.save("student.npy", logits)
    np.save("teacher.npy", targets)
    return logits, targets


def perturbed(logits: Any) -> Any:
    """Worse by a known amount: a few rows sharpened a lot, all of them a little."""
    worse = 2.5 * logits
    worse[[7, 300, 451]] *= -2
    np.save("student.npy", worse)
    return worse


def divergences(logits: Any, targets: Any) -> Any:
    """By NumPy and SciPy, of float32 data in float64; targets may be 0."""
    from scipy.special import log_softmax, xlogy

    y = targets.astype(np.float64)
    return (xlogy(y, y) - y * log_softmax(logits.astype(np.float64), -1)).sum(-1)


WHOLE = """\
{top}baseline = "base.json"

[{table}pairs.digits]
predictions = "student.npy"
targets = "teacher.npy"
log_softmax = -1
limits = ["distmean < baseline * 1.1", "p99 < baseline * 1.1"]
"""


@pytest.mark.parametrize("kind", ["pair", "suite.toml", "pyproject.toml"])
def test_worse_outputs_fail_until_they_are_accepted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = sample(tmp_path, monkeypatch)
    pair: tuple[str, ...]
    limits: tuple[str, ...]
    if kind == "pair":
        pair = (
            "student.npy",
            "teacher.npy",
            "--log-softmax",
            "-1",
            "--name",
            "digits",
            "--baseline",
            "base.json",
        )
        limits = ("--limit", "distmean < baseline * 1.1", "--limit", "p99 < baseline * 1.1")
    else:
        table = ("[tool.kldiv]\n", "tool.kldiv.") if kind == "pyproject.toml" else ("", "")
        Path(kind).write_text(WHOLE.format(top=table[0], table=table[1]))
        pair, limits = ((kind,) if kind == "suite.toml" else ()), ()
    assert process("baseline", "record", *pair).code == 0
    assert process("check", *pair, *limits).code == 0

    before, after = divergences(logits, targets), divergences(perturbed(logits), targets)
    bound = 1.1 * before.mean()
    assert after.mean() > 1.2 * bound
    run = process("check", *pair, *limits, "--precision", "6")
    assert (run.code, run.err) == (1, "")
    lines = {tuple(line.split()[:6]): line.split() for line in run.out.splitlines() if line}
    (failed,) = (cells for cells in lines.values() if "distmean" in cells and "failed" in cells)
    assert failed[-6:-4] == [f"{after.mean():.6g}", f"{bound:.6g}"]
    assert "p99 < baseline * 1.1" in run.out
    worst = np.argsort(-after)[:5]
    listed = [line.split() for line in run.out.split("worst ")[1].split("\n\n")[0].splitlines()[1:]]
    assert [int(cells[1]) for cells in listed] == worst.tolist()
    assert [float(cells[2]) for cells in listed] == pytest.approx(after[worst], rel=1e-5)
    assert re.search(r"^ +kl +baseline +now$", run.out, flags=re.MULTILINE)

    refusal = process("baseline", "update", *pair)
    assert refusal.code == 2
    assert process("check", *pair, *limits).code == 1
    update = process("baseline", "update", *pair, "--yes")
    assert update.code == 0
    assert "distmean" in update.out
    assert process("check", *pair, *limits).code == 0


def test_the_histogram_of_a_failure_counts_the_losses_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, targets = sample(tmp_path, monkeypatch)
    pair = ("student.npy", "teacher.npy", "--log-softmax", "-1", "--baseline", "base.json")
    assert process("baseline", "record", *pair).code == 0
    before, after = divergences(logits, targets), divergences(perturbed(logits), targets)
    run = process("check", *pair, "--limit", "distmean < baseline")
    rows = re.findall(r"^ *(\S+) to \S+ +(\d+)[ ▏▎▍▌▋▊▉█]+(\d+)", run.out, flags=re.MULTILINE)
    edges = [*(2 ** np.round(np.log2([float(first) for first, *_ in rows]))), np.inf]
    for column, losses in enumerate((before, after)):
        counts, _ = np.histogram(losses, edges)
        assert [int(row[1 + column]) for row in rows] == counts.tolist()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_a_result_that_nobody_could_read_is_no_pass(kldiv: Kldiv) -> None:
    command = [sys.executable, "-m", "kldiv_cli", "check", *shlex.split(GOOD), *LIMIT]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "the result was not written whole" in done.stderr) == (2, True)


# Numbers


def test_every_statistic_of_a_limit_is_that_of_compute(kldiv: Kldiv) -> None:
    np.save("p.npy", np.eye(7)[outputs()[1].argmax(-1)])
    options = [*shlex.split(GOOD), "--by-target", "--quantiles", "0.125,0.9997", "--blocks-of", "4"]
    names = flattened(kldiv("compute", *options, "--top1", "--json").record)
    (result,) = kldiv("check", *options, "--limit", "elements > 0", "--json").record["results"]
    known = result["statistics"]["kl"].keys()
    assert known == names.keys() | {"by_target.outside.count", "by_target.outside.mean"}
    limits = [option for name in known for option in ("--limit", f"{name} > 0", "--limit", f"kl.{name} > 0")]
    run = kldiv("check", *options, *limits, "--json")
    verdicts = {limit["statistic"]: limit for limit in run.record["results"][0]["limits"]}
    for name, number in names.items():
        for verdict in (verdicts[name], verdicts[f"kl.{name}"]):
            assert verdict["obtained"] == number
            assert verdict["passed"] is (number is not None and number > 0)


def flattened(record: dict[str, Any]) -> dict[str, float | None]:
    """The numbers of `kldiv compute --json` by the names of limits, each from where it stands there."""
    statistics, top1 = record["statistics"], record["top1"]
    named = {
        name: record[name] for name in ("elements", "distributions", "batch", "sum", "mean", "batchmean")
    }
    named |= {
        name: number for name, number in statistics.items() if name not in ("of", "count", "mean", "exact")
    }
    named["distmean"] = statistics["mean"]
    named["blocks.standard_error"] = named.pop("blocks")["standard_error"]
    named |= {"top1": top1["share"], "top1.standard_error": top1["standard_error"]}
    for group, split in record["by_target"].items():
        named |= {f"by_target.{group}.{what}": split[what] for what in ("count", "mean")}
    return named


@pytest.mark.parametrize(
    "limit",
    [
        "distmean < 1e-4", "distmean <= 1e-4", "p99.97 < 1e-4", "p12.5 < 1e-6", "maximum < 0.001",
        "sum < 0.1", "minimum > 1", "top1 >= 0.9999", "top1 > 0.9999", "distmean == 1",
        "elements == 3", "elements < 280", "distributions > 40", "distmean > 9", "kl.p99.97 < p12.5",
        "distmean < p50 / 10",
    ],
)  # fmt: skip
def test_the_limit_that_would_pass_does(kldiv: Kldiv, limit: str) -> None:
    command = ("check", *shlex.split(GOOD), "--json", "--limit")
    failed = kldiv(*command, limit)
    assert failed.code == 1
    ((told,),) = (result["limits"] for result in failed.record["results"])
    assert kldiv(*command, told["would_pass"]).code == 0


def test_percentiles_that_only_limits_name_are_computed_recorded_and_held(kldiv: Kldiv) -> None:
    text = 'baseline = "base.json"\n' + SUITE.replace(
        '"distmean < 1"', '"kl.p12.5 < p37.5", "p99.97 < baseline * 1.1", "distmean < baseline.p62.5"'
    )
    path = suite(text)
    recording = kldiv("baseline", "record", path)
    assert (recording.code, recording.out) == (0, "")
    run = kldiv("check", path, "--json")
    assert run.code == 0
    losses = kl_of(*outputs())
    first, second, third = run.record["results"][0]["limits"]
    assert first["obtained"] == pytest.approx(np.quantile(losses, 0.125))
    assert first["bound"] == pytest.approx(np.quantile(losses, 0.375))
    assert second["bound"] == pytest.approx(1.1 * np.quantile(losses, 0.9997))
    assert third["bound"] == pytest.approx(np.quantile(losses, 0.625))
    Path("suite.toml").write_text(text.replace("62.5", "63"))
    said = refused(kldiv("check", path))
    assert "has no 'p63', which limit 'distmean < baseline.p63' needs; record it with" in said
    assert kldiv("baseline", "update", path, "--yes").code == 0
    assert kldiv("check", path).code == 0


def test_limits_on_two_losses_of_one_pair_are_each_of_their_own(kldiv: Kldiv) -> None:
    both = (*shlex.split(GOOD), "--loss", "kl", "--loss", "bce")
    limits = ("--limit", "kl.distmean < 1", "--limit", "bce.mean < 1", "--limit", "elements == 280")
    assert kldiv("check", *both, *limits).code == 0
    run = kldiv("check", *both, "--limit", "kl.distmean < 1", "--limit", "bce.mean < 1e-9", "--json")
    assert run.code == 1
    assert [v["passed"] for v in run.record["results"][0]["limits"]] == [True, False]
    assert "no statistic 'mean'" in refused(kldiv("check", *both, "--limit", "mean < 1"))
    assert kldiv("baseline", "record", *both, "--baseline", "base.json").code == 0
    held = ("--limit", "bce.mean <= baseline", "--limit", "kl.p99 < baseline.bce.p99 + kl.maximum")
    assert kldiv("check", *both, *held, "--baseline", "base.json").code == 0
    assert kldiv("check", *both, "--limit", "bce.mean < baseline", "--baseline", "base.json").code == 1
