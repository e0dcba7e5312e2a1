"""Suites: what a file says of pairs is what comes out, and whatever it says wrong is an error."""

from __future__ import annotations

import inspect
import json
import math
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

import kldiv_cli
from kldiv_cli.errors import FormatError, InputError, InputNotFound, KldivError, UsageError
from kldiv_cli.pair import OPTIONS, Pair, SuiteLimit
from kldiv_cli.streams import harmless
from kldiv_cli.suite import Suite, read_suite

Files = Callable[..., None]

DIGITS = '[pairs.digits]\npredictions = "q.npy"\ntargets = "p.npy"\n'
LAYERS = '[pairs.layers]\npredictions = "out/layer*.npy"\ntargets = "ref/{stem}.npy"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Make files, and the directories they are in."""

    def make(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

    return make


def suite(text: str, path: str = "suite.toml") -> Suite:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, "utf-8")
    return read_suite(path)


def pairs(text: str, path: str = "suite.toml") -> dict[str, Pair]:
    return {pair.name: pair for pair in suite(text, path).pairs}


def addresses(text: str) -> dict[str, tuple[str, str]]:
    return {pair.name: (slashed(pair.predictions), slashed(pair.targets)) for pair in suite(text).pairs}


def slashed(path: str) -> str:
    return path.replace(os.sep, "/")


def problem(text: str, path: str = "suite.toml") -> str:
    with pytest.raises(KldivError) as caught:
        suite(text, path)
    return slashed(str(caught.value))


# What a suite says


def test_the_whole_of_a_suite_is_read_in_its_order(files: Files) -> None:
    files("ci/out/layer1.npy", "ci/out/layer2.npy", "ci/ref/layer1.npy", "ci/ref/layer2.npy")
    text = """
        baseline = "baseline.json"

        [defaults]
        log-softmax = -1
        limits = ["distmean < 0.3"]
        allow = ["targets-padding"]

        [groups.int8]
        limits = ["top1 >= 0.97"]
        temperature = 2

        [pairs.layers]
        predictions = "out/layer*.npy"
        targets = "ref/{stem}.npy"
        mask = "ref/{stem}_mask.npy"
        group = "int8"
        allow = ["zero-terms"]

        [pairs.digits]
        predictions = "out/digits.npy"
        targets = "ref/digits.h5::/probs[0:5]"
        limits = ["p99 < 3", "max < 9"]
    """
    base, obtained = SuiteLimit("distmean < 0.3", "defaults"), suite(text, "ci/suite.toml")
    assert obtained == Suite(
        path="ci/suite.toml",
        baseline=os.path.join("ci", "baseline.json"),
        pairs=(
            *(
                Pair(
                    name=f"layers/layer{k}",
                    predictions=os.path.join("ci", "out", f"layer{k}.npy"),
                    targets=os.path.join("ci", f"ref/layer{k}.npy"),
                    options={
                        "log_softmax": -1,
                        "temperature": 2,
                        "mask": os.path.join("ci", f"ref/layer{k}_mask.npy"),
                    },
                    limits=(base, SuiteLimit("top1 >= 0.97", "groups.int8")),
                    allow=frozenset({"targets-padding", "zero-terms"}),
                    group="int8",
                )
                for k in (1, 2)
            ),
            Pair(
                name="digits",
                predictions=os.path.join("ci", "out/digits.npy"),
                targets=os.path.join("ci", "ref/digits.h5::/probs[0:5]"),
                options={"log_softmax": -1},
                limits=(base, SuiteLimit("p99 < 3", "pairs.digits"), SuiteLimit("max < 9", "pairs.digits")),
                allow=frozenset({"targets-padding"}),
            ),
        ),
    )
    assert pickle.loads(pickle.dumps(obtained)) == obtained


def test_a_pyproject_has_the_same_tables_under_tool_kldiv() -> None:
    text = DIGITS + 'limits = ["p99 < 3"]\naxis = 1\n'
    plain = suite(text)
    (inner,) = suite(
        '[tool.ruff]\nunknown = 1\n[tool.kldiv.pairs.digits]\npredictions = "q.npy"\ntargets = "p.npy"\n'
        'limits = ["p99 < 3"]\naxis = 1\n',
        "pyproject.toml",
    ).pairs
    assert (inner,) == plain.pairs


def test_a_pairs_option_wins_over_its_groups_and_that_over_the_defaults() -> None:
    text = """
        [defaults]
        worst = 1
        axis = 1
        trim_axis = true
        [groups.a]
        axis = 2
        trim-axis = false
        [pairs.x]
        predictions = "q"
        targets = "p"
        group = "a"
        axis = 3
        [pairs.y]
        predictions = "q"
        targets = "p"
    """
    made = pairs(text)
    assert made["x"].options == {"worst": 1, "axis": 3, "trim_axis": False}
    assert made["y"].options == {"worst": 1, "axis": 1, "trim_axis": True}


def test_arrays_come_out_as_tuples_and_numbers_as_they_are_written() -> None:
    (pair,) = suite(
        DIGITS + 'loss = ["kl", "bce"]\nquantiles = [0.25, 1]\nignore_value = -100\ntemperature = inf'
    ).pairs
    assert pair.options == {
        "loss": ("kl", "bce"),
        "quantiles": (0.25, 1),
        "ignore_value": -100,
        "temperature": math.inf,
    }


def test_every_file_of_a_pair_is_seen_from_the_suite_wherever_the_option_stands(tmp_path: Path) -> None:
    absolute = os.path.join(str(tmp_path), "w.npy")
    text = f"""
        [defaults]
        mask = "m.npy"
        [groups.g]
        pos_weight = {json.dumps(absolute)}
        [pairs.x]
        predictions = "../q.npy"
        targets = "p.h5::/a"
        weight = "w.h5::/w"
        group = "g"
    """
    pair = pairs(text, "a/b/suite.toml")["x"]
    assert pair.predictions == os.path.join("a/b", "../q.npy")
    assert pair.targets == os.path.join("a/b", "p.h5::/a")
    assert pair.options == {
        "mask": os.path.join("a/b", "m.npy"),
        "pos_weight": absolute,
        "weight": os.path.join("a/b", "w.h5::/w"),
    }


def test_the_options_are_the_arguments_of_evaluate_that_do_not_belong_to_a_run() -> None:
    of_a_run = {"distributions", "output", "output_dtype", "force", "workers", "memory", "progress"}
    of_a_run |= {"histogram", "scheduler"}
    keywords = {
        name
        for name, parameter in inspect.signature(kldiv_cli.evaluate).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert set(OPTIONS) == keywords - of_a_run


def test_a_byte_order_mark_and_windows_line_ends_change_nothing() -> None:
    Path("suite.toml").write_bytes(b"\xef\xbb\xbf" + DIGITS.replace("\n", "\r\n").encode())
    assert [pair.name for pair in read_suite("suite.toml").pairs] == ["digits"]


def test_the_suite_in_the_docstring_is_a_suite(files: Files) -> None:
    import kldiv_cli.suite

    files("out/layer1.npy", "ref/layer1.npy")
    text = (kldiv_cli.suite.__doc__ or "").split("::\n\n")[1].split("\n\nA pair's")[0]
    assert list(pairs(text)) == ["digits", "layers/layer1"]


# Globs


def test_a_glob_makes_a_pair_of_each_match_in_order_with_its_partners(files: Files) -> None:
    files("out/layer2.npy", "out/layer10.npy", "out/other.npy", "out/.layer3.npy", "out/layer.d/x")
    files("ref/layer2.npy", "ref/layer10.npy")
    assert addresses(LAYERS) == {
        "layers/layer10": ("out/layer10.npy", "ref/layer10.npy"),
        "layers/layer2": ("out/layer2.npy", "ref/layer2.npy"),
    }


def test_a_name_with_stem_in_it_takes_the_stem_there(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy")
    assert list(pairs(LAYERS.replace("pairs.layers", 'pairs."int8 {stem} L"'))) == ["int8 layer1 L"]


def test_what_is_behind_the_file_is_kept_for_each_match_and_may_have_the_stem(files: Files) -> None:
    files("out/a.h5", "out/b.h5")
    text = '[pairs.x]\npredictions = "out/?.h5::/q[0:9]"\ntargets = "ref.h5::/{stem}/p"'
    assert addresses(text) == {
        "x/a": ("out/a.h5::/q[0:9]", "ref.h5::/a/p"),
        "x/b": ("out/b.h5::/q[0:9]", "ref.h5::/b/p"),
    }


def test_all_matches_may_be_held_against_one_target(files: Files) -> None:
    files("out/a.npy", "out/b.npy")
    text = '[pairs.x]\npredictions = "out/*"\ntargets = "labels.npy"'
    assert addresses(text) == {
        "x/a": ("out/a.npy", "labels.npy"),
        "x/b": ("out/b.npy", "labels.npy"),
    }


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("d/*.npy", ["d/a.npy", "d/b.npy"]),
        ("d/[!b].npy", ["d/a.npy"]),
        ("d/[ab].*", ["d/a.npy", "d/b.npy"]),
        ("d/?.npy", ["d/a.npy", "d/b.npy"]),
        ("d/.*", ["d/.h.npy"]),
        ("./d/a*", ["./d/a.npy"]),
        ("*/a.npy", ["d/a.npy"]),
        ("d/*/c.npy", ["d/e/c.npy"]),
        ("d/**", ["d/a.npy", "d/b.npy", "d/e/c.npy", "d/e/f/g.npy"]),
        ("**/g.npy", ["d/e/f/g.npy"]),
        ("d/**/*.npy", ["d/a.npy", "d/b.npy", "d/e/c.npy", "d/e/f/g.npy"]),
        ("d/**/**/[cg].npy", ["d/e/c.npy", "d/e/f/g.npy"]),
        ("d/**/f/*", ["d/e/f/g.npy"]),
        ("d/e*/../a.npy", ["d/e/../a.npy"]),
    ],
)
def test_wildcards_match_files_that_are_not_hidden(files: Files, pattern: str, matched: list[str]) -> None:
    files("d/a.npy", "d/b.npy", "d/e/c.npy", "d/e/f/g.npy", "d/.h.npy", "d/.k/i.npy")
    obtained = suite(f'[pairs.x]\npredictions = "{pattern}"\ntargets = "p"').pairs
    assert [slashed(pair.predictions) for pair in obtained] == matched


def test_a_path_that_exists_as_it_is_written_is_no_pattern(files: Files) -> None:
    files("a[1].npy", "a1.npy", "run[2]/b.npy", "run2/b.npy", "q::{stem}*.npy")
    text = '[pairs.x]\npredictions = "{}"\ntargets = "p"'
    assert addresses(text.replace("{}", "a[1].npy")) == {"x": ("a[1].npy", "p")}
    assert addresses(text.replace("{}", "a[1].npy::[0:3]")) == {"x": ("a[1].npy::[0:3]", "p")}
    assert addresses(text.replace("{}", "run[2]/*.npy")) == {"x/b": ("run[2]/b.npy", "p")}
    if os.name != "nt":
        assert addresses(text.replace("{}", "q::{stem}*.npy")) == {"x": ("q::{stem}*.npy", "p")}


def test_wildcards_braces_and_colons_in_the_directory_of_a_suite_mean_nothing(files: Files) -> None:
    base = "a[b]{stem}" if os.name == "nt" else "a[b]{stem}::*"
    files(f"{base}/out/layer1.npy", f"{base}/ref/layer1.npy", "ab/out/layer2.npy")
    (pair,) = suite(LAYERS, f"{base}/suite.toml").pairs
    assert slashed(pair.targets) == f"{base}/ref/layer1.npy"
    assert problem(LAYERS.replace("ref/", "gone/"), f"{base}/suite.toml").startswith(
        f"{base}/suite.toml: [pairs.layers] targets: no file {base}/gone/layer1.npy, expected one"
    )


def test_a_file_that_is_not_there_is_a_pair_for_the_reader_to_refuse() -> None:
    assert addresses(DIGITS) == {"digits": ("q.npy", "p.npy")}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_that_leads_nowhere_is_a_match_and_not_lost(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy")
    os.symlink("gone", "out/layer2.npy")
    os.symlink("gone", "ref/layer2.npy")
    assert list(pairs(LAYERS)) == ["layers/layer1", "layers/layer2"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_linked_directories_are_searched_but_not_in_circles(files: Files) -> None:
    files("d/a.npy", "d/e/c.npy", "elsewhere/b.npy")
    os.symlink("../elsewhere", "d/linked")
    os.symlink("..", "d/e/up")
    os.symlink(".", "d/round")
    obtained = suite('[pairs.x]\npredictions = "d/**/[abc].npy"\ntargets = "p"\n').pairs
    assert [slashed(pair.predictions) for pair in obtained] == ["d/a.npy", "d/e/c.npy", "d/linked/b.npy"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_directory_that_can_not_be_listed_is_an_error_and_not_empty(files: Files) -> None:
    files("out/layer1.npy")
    os.symlink("loop", "loop")
    assert problem(LAYERS.replace("out/", "loop/")) == (
        "suite.toml: [pairs.layers] predictions: loop: Too many levels of symbolic links, "
        "expected a directory that can be listed; mend its rights or links"
    )


def test_a_directory_without_rights_is_an_error_and_not_empty(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(directory: str) -> Any:
        if directory == "ref":
            raise PermissionError(13, "Permission denied", directory)
        return scandir(directory)

    files("out/layer1.npy", "ref/layer1.npy")
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(InputError, match=r"\[pairs.layers\] targets: ref: Permission denied, expected"):
        suite(LAYERS)


# Partners


def test_a_target_without_a_prediction_is_an_error_so_that_no_lost_shard_passes(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy", "ref/layer2.npy", "ref/layer3.npy")
    with pytest.raises(InputError) as caught:
        suite(LAYERS)
    assert slashed(str(caught.value)) == (
        "suite.toml: [pairs.layers] targets: no prediction for ref/layer2.npy, ref/layer3.npy, expected "
        "a match of 'out/layer*.npy' for each; add them, or leave such targets out with "
        "allow_unmatched = true"
    )


def test_a_prediction_without_a_target_is_an_error_that_names_the_first_few(files: Files) -> None:
    files(*(f"out/layer{k}.npy" for k in range(8)), "ref/layer0.npy")
    with pytest.raises(InputNotFound) as caught:
        suite(LAYERS)
    assert slashed(str(caught.value)) == (
        "suite.toml: [pairs.layers] targets: no file ref/layer1.npy, ref/layer2.npy, ref/layer3.npy, "
        "ref/layer4.npy, ref/layer5.npy and 2 more, expected one for each match of 'out/layer*.npy'; "
        "add them, or drop such predictions with allow_unmatched = true"
    )


@pytest.mark.parametrize("place", ["defaults", "groups.g", "pairs.layers"])
def test_allow_unmatched_drops_what_has_no_partner_on_either_side(files: Files, place: str) -> None:
    files("out/layer1.npy", "out/layer2.npy", "ref/layer2.npy", "ref/layer3.npy")
    text = f'{LAYERS}group = "g"\n'
    others = {"defaults": "", "groups.g": ""} | {place: "allow-unmatched = true\n"}
    text += others.pop("pairs.layers", "")
    assert list(pairs(text + "".join(f"[{name}]\n{line}" for name, line in others.items()))) == [
        "layers/layer2"
    ]


def test_a_pair_may_take_back_what_the_defaults_allow(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy", "ref/layer2.npy")
    text = f"{LAYERS}allow_unmatched = false\n[defaults]\nallow_unmatched = true"
    assert "no prediction for ref/layer2.npy" in problem(text)


def test_allow_unmatched_does_not_allow_that_nothing_is_left(files: Files) -> None:
    files("out/layer1.npy", "ref/layer2.npy")
    assert problem(LAYERS + "allow_unmatched = true") == (
        "suite.toml: [pairs.layers] targets: no file ref/layer1.npy, expected one for each match of "
        "'out/layer*.npy'; mend the path or the dump"
    )


def test_a_target_that_the_glob_could_not_match_is_not_missed(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy", "ref/embedding.npy", "ref/.layer2.npy", "ref/layer2.txt")
    files("ref/layer3.npy/directory")
    assert list(pairs(LAYERS)) == ["layers/layer1"]


@pytest.mark.parametrize("pattern", ["out/*", "out/l*.*", "out/**", "**/layer?.npy", "out/layer[0.12]*"])
def test_a_lost_prediction_is_missed_whatever_the_shape_of_the_glob(files: Files, pattern: str) -> None:
    files("out/layer1.npy", "ref2/layer1.npz", "ref2/layer2.npz")
    text = f'[pairs.x]\npredictions = "{pattern}"\ntargets = "ref2/{{stem}}.npz"'
    assert "targets: no prediction for ref2/layer2.npz, expected" in problem(text)


def test_masks_beside_the_targets_are_not_taken_for_targets(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy", "ref/layer1_mask.npy", "ref/layer_w.npy")
    text = LAYERS + 'mask = "ref/{stem}_mask.npy"\nweight = "ref/layer_w.npy"\n'
    assert list(pairs(text)) == ["layers/layer1"]
    files("ref/layer2.npy", "ref/layer2_mask.npy")
    assert "no prediction for ref/layer2.npy, expected" in problem(text)


def test_a_mask_that_is_the_target_itself_hides_no_lost_prediction(files: Files) -> None:
    files("out/layer1.npy", "ref/layer1.npy", "ref/layer2.npy")
    assert "no prediction for ref/layer2.npy, expected" in problem(LAYERS + 'mask = "ref/{stem}.npy::/m"')


@pytest.mark.parametrize(
    "template",
    ["ref/{stem}/p.npy", "ref/x-{stem}/{stem}.npy", "ref/{stem}{stem}.npy", "{stem}.h5::/a/{stem}"],
)
def test_the_stem_may_stand_anywhere_in_the_targets(files: Files, template: str) -> None:
    text = LAYERS.replace("ref/{stem}.npy", template)
    files(
        "out/layer1.npy", template.replace("{stem}", "layer1").partition("::")[0], "ref/x-layer7/layer8.npy"
    )
    assert [slashed(pair.targets) for pair in suite(text).pairs] == [template.replace("{stem}", "layer1")]
    files(lost := template.replace("{stem}", "layer2").partition("::")[0])
    assert f"no prediction for {lost}, expected" in problem(text)


# What is wrong with a suite

PAIR = "suite.toml: [pairs.digits]"
TOP = "suite.toml:"

ERRORS: Mapping[str, tuple[str, str]] = {
    "no pairs": ("", f"{TOP} no pairs, expected at least one; add [pairs.NAME] with predictions and targets"),
    "pairs without any": (
        "[pairs]",
        f"{TOP} no pairs, expected at least one; add [pairs.NAME] with predictions and targets",
    ),
    "syntax": (
        "[pairs.digits]\naxis = ?",
        f"{TOP} Invalid value (at line 2, column 8), expected TOML; mend it there",
    ),
    "deep": (
        "x = " + "[" * 100_000,
        f"{TOP} arrays or tables too deep in each other, expected TOML; mend it there",
    ),
    "top key": ("baselin = 'b'", f"{TOP} baselin: unknown key; did you mean 'baseline'?"),
    "top key like none": (
        "nonsense = 1",
        f"{TOP} nonsense: unknown key, expected one of baseline, defaults, groups, pairs",
    ),
    "option at the top": (
        "axis = 1",
        f"{TOP} axis: not a key of this table, expected in [defaults] or [pairs.NAME]; move it there",
    ),
    "baseline": ("baseline = 1", f'{TOP} baseline: 1, expected the path of a file, as in baseline = "FILE"'),
    "empty baseline": (
        f"baseline = ''\n{DIGITS}",
        f"{TOP} baseline: '', expected FILE, FILE::DATASET or FILE::[0:1000]; "
        "write it as seen from the suite's directory",
    ),
    "pairs no table": (
        "pairs = 'x'",
        f"{TOP} pairs: 'x', expected tables with names; write each as [pairs.NAME]",
    ),
    "pairs an array": (
        "[[pairs]]\nname = 'x'",
        f"{TOP} pairs: an array, expected tables with names; write each as [pairs.NAME]",
    ),
    "pair no table": (
        "[pairs]\ndigits = 1979-05-27",
        "suite.toml: [pairs] digits: a date or time, expected a table; write it as [pairs.NAME]",
    ),
    "defaults no table": ("defaults = 1", f"{TOP} defaults: 1, expected a table; write it as [defaults]"),
    "key": (DIGITS + "tempratur = 1", f"{PAIR} tempratur: unknown key; did you mean 'temperature'?"),
    "long key": (
        DIGITS + f"{'k' * 300} = 1",
        f'{PAIR} "{"k" * 200}…": unknown key, expected one of allow, allow_external, allow_unmatched, axis, '
        "blocks_of, broadcast, by_target, group, ignore_value, limits, log_softmax, log_target, loss, mask, "
        "pos_weight, predictions, predictions_are, quantiles, targets, targets_are, temperature, top1, "
        "trim_axis, weight, worst, zero_policy",
    ),
    "key with a line break": (
        DIGITS + '"ax\\nis" = 1',
        f"{PAIR} \"ax\\nis\": unknown key; did you mean 'axis'?",
    ),
    "key twice": (
        DIGITS + "log_softmax = 1\nlog-softmax = 1",
        f"{PAIR} log-softmax: there as log_softmax too, expected one of them; drop the other",
    ),
    "defaults' predictions": (
        f"{DIGITS}[defaults]\npredictions = 'q'",
        "suite.toml: [defaults] predictions: not a key of this table, expected in [pairs.NAME]; "
        "move it there",
    ),
    "group in a group": (
        f"{DIGITS}[groups.g]\ngroup = 'g'",
        "suite.toml: [groups.g] group: not a key of this table, expected in [pairs.NAME]; move it there",
    ),
    "no predictions": (
        "[pairs.digits]\ntargets = 'p'",
        f'{PAIR}: no predictions, expected an array\'s address; add predictions = "FILE"',
    ),
    "no targets": (
        "[pairs.digits]\npredictions = 'p'",
        f'{PAIR}: no targets, expected an array\'s address; add targets = "FILE"',
    ),
    "targets no text": (
        "[pairs.digits]\ntargets = ['p']",
        f'{PAIR} targets: an array, expected the path of a file, as in targets = "FILE"',
    ),
    "bool for int": (DIGITS + "axis = true", f"{PAIR} axis: true, expected a whole number, as in axis = 1"),
    "float for int": (DIGITS + "worst = 1.0", f"{PAIR} worst: 1.0, expected a whole number, as in worst = 1"),
    "int of 65 bits": (
        DIGITS + "axis = 0x8000000000000000",
        f"{PAIR} axis: a whole number of more than 64 bits, expected a whole number, as in axis = 1",
    ),
    "int of many digits": (
        DIGITS + "temperature = 0x" + "f" * 9999,
        f"{PAIR} temperature: a whole number of more than 64 bits, expected a number, "
        "as in temperature = 0.5",
    ),
    "int of too many digits": (
        DIGITS + "axis = " + "9" * 9999,
        f"{TOP} Exceeds the limit (4300 digits) for integer string conversion: value has 9999 digits; "
        "use sys.set_int_max_str_digits() to increase the limit, expected TOML; mend it there",
    ),
    "bool for number": (
        DIGITS + "temperature = false",
        f"{PAIR} temperature: false, expected a number, as in temperature = 0.5",
    ),
    "text for bool": (
        DIGITS + "broadcast = 'true'",
        f"{PAIR} broadcast: 'true', expected true or false, without quotes",
    ),
    "text for limits": (
        DIGITS + "limits = 'p99 < 3'",
        f"{PAIR} limits: 'p99 < 3', expected an array of strings, as in limits = [\"…\"]",
    ),
    "number in limits": (
        DIGITS + "limits = ['p99 < 3', 3.5]",
        f'{PAIR} limits: an array with 3.5 in it, expected an array of strings, as in limits = ["…"]',
    ),
    "bool in quantiles": (
        DIGITS + "quantiles = [0.5, true]",
        f"{PAIR} quantiles: an array with true in it, expected an array of numbers, as in quantiles = [0.5]",
    ),
    "losses": (
        DIGITS + "loss = [['kl']]",
        f"{PAIR} loss: an array with an array in it, expected a string or an array of them, "
        'as in loss = ["…"]',
    ),
    "table for an option": (
        DIGITS + "targets-are = {}",
        f'{PAIR} targets-are: a table, expected a string, as in targets-are = "…"',
    ),
    "long text": (
        DIGITS + f"axis = '{'x' * 99}'",
        f"{PAIR} axis: '{'x' * 60}…', expected a whole number, as in axis = 1",
    ),
    "text with control characters": (
        DIGITS + 'axis = "a\\u0000\\nb"',
        f"{PAIR} axis: 'a\\x00\\nb', expected a whole number, as in axis = 1",
    ),
    "group that is not there": (
        DIGITS + "group = 'g'",
        f"{PAIR} group: 'g' is no group; add a table [groups.NAME] of that name",
    ),
    "group misspelt": (
        f"{DIGITS}group = 'int'\n[groups.int8]",
        f"{PAIR} group: 'int' is no group; did you mean 'int8'?",
    ),
    "group like none": (
        f"{DIGITS}group = 'x'\n[groups.int8]\n[groups.int4]",
        f"{PAIR} group: 'x' is no group, expected one of int4, int8",
    ),
    "group without pairs": (
        f"{DIGITS}[groups.int8]\nlimits = []",
        "suite.toml: [groups.int8]: no pair is of this group, so its limits hold nothing; "
        'say group = "int8" in a pair, or remove the table',
    ),
    "empty address": (
        DIGITS + "mask = '::/m'",
        f"{PAIR} mask: '::/m', expected FILE, FILE::DATASET or FILE::[0:1000]; "
        "write it as seen from the suite's directory",
    ),
    "no dataset": (
        DIGITS + "mask = 'm.h5::'",
        f"{PAIR} mask: 'm.h5::', expected FILE, FILE::DATASET or FILE::[0:1000]; "
        "write it as seen from the suite's directory",
    ),
    "null character": (
        DIGITS + 'mask = "m\\u0000"',
        f"{PAIR} mask: 'm\\x00', expected FILE, FILE::DATASET or FILE::[0:1000]; "
        "write it as seen from the suite's directory",
    ),
    "no match": (
        LAYERS,
        "suite.toml: [pairs.layers] predictions: no file matches 'out/layer*.npy', expected at least one, "
        "seen from the suite's directory '.'; mend the pattern or the dump",
    ),
    "stem without a glob": (
        "[pairs.digits]\npredictions = 'q'\ntargets = '{stem}'",
        f"{PAIR} targets: '{{stem}}' has {{stem}}, expected it only where the predictions have a wildcard, "
        "and files match it; write the file's name",
    ),
    "stem of the defaults without a glob": (
        DIGITS + "[defaults]\nmask = '{stem}_mask.npy'",
        "suite.toml: [defaults] mask: '{stem}_mask.npy' has {stem}, expected it only where the predictions "
        "have a wildcard, and files match it; write the file's name",
    ),
    "stem in predictions": (
        "[pairs.digits]\npredictions = 'q/{stem}.npy'\ntargets = 'p/{stem}.npy'",
        f"{PAIR} predictions: 'q/{{stem}}.npy' has {{stem}}, expected it in the partners of a glob only; "
        "write * in its place",
    ),
    "stem in a name": (
        DIGITS.replace("digits", "'{stem}'"),
        'suite.toml: [pairs."{stem}"]: the name has {stem} but the predictions no wildcard, expected both; '
        "name the pair otherwise",
    ),
    "empty name": (
        DIGITS.replace("digits", "' '"),
        "suite.toml: [pairs.\" \"]: the name ' ' is empty, expected another one; rename the table",
    ),
    "long name": (
        DIGITS.replace("digits", "d" * 201),
        f"suite.toml: [pairs.\"{'d' * 200}…\"]: the name '{'d' * 60}…' has 201 characters, "
        "expected at most 200; rename the table",
    ),
    "command for a runner": (
        DIGITS.replace("digits", "' ::error'"),
        "suite.toml: [pairs.\" ::error\"]: the name ' ::error' begins with '::', which CI runners take "
        "for a command, expected another one; rename the table",
    ),
    "command for an old runner": (
        DIGITS.replace("digits", "'a##[error]'"),
        "suite.toml: [pairs.\"a##[error]\"]: the name 'a##[error]' has '##[' in it, which CI runners take "
        "for a command, expected another one; rename the table",
    ),
    "name of a group": (
        DIGITS + '[groups."a\\nb"]',
        "suite.toml: [groups.\"a\\nb\"]: the name 'a\\nb' has control characters, expected printable ones; "
        "rename the table",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_each_mistake_is_told_on_one_line_with_its_place(name: str) -> None:
    text, expected = ERRORS[name]
    assert problem(text) == expected
    assert "\n" not in expected


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_takes_its_own_type_only(option: str) -> None:
    values = {"integer": "-1", "number": "0.5", "boolean": "true", "string": "'s'", "address": "'s'"}
    values |= {"strings": "['s']", "numbers": "[0.5, 1]"}
    fitting = {"string or strings": {"string", "address", "strings"}, "number": {"number", "integer"}}
    texts = {"string", "address"}
    fits = fitting.get(OPTIONS[option], texts if OPTIONS[option] in texts else {OPTIONS[option]})
    for kind, value in values.items():
        text = f"{DIGITS}{option} = {value}"
        if kind in fits:
            assert option in suite(text).pairs[0].options
        else:
            assert problem(text).startswith(f"{PAIR} {option}: ")


def test_errors_in_a_pyproject_name_the_whole_table() -> None:
    text = "[tool.kldiv.pairs.digits]\naxis = true"
    path = "pyproject.toml"
    assert problem(text, path).startswith("pyproject.toml: [tool.kldiv.pairs.digits] axis: true, expected")
    assert problem("[tool.kldiv]\npair = 1", path) == (
        "pyproject.toml: [tool.kldiv] pair: unknown key; did you mean 'pairs'?"
    )
    assert problem("[tool.kldiv]\npairs = 1", path).endswith("write each as [tool.kldiv.pairs.NAME]")


@pytest.mark.parametrize("text", ["", "[tool.ruff]", "tool = 1", "[tool]\nkldiv = 1"])
def test_a_pyproject_that_says_nothing_of_kldiv_is_an_error_that_says_so(text: str) -> None:
    assert problem(text, "pyproject.toml") == (
        "pyproject.toml: no table [tool.kldiv], expected the suite in it; "
        "add [tool.kldiv.pairs.NAME] with predictions and targets, or name another file"
    )


def test_a_file_that_is_called_like_a_placeholder_is_named_as_it_is(files: Files) -> None:
    files("out/a/{path}.npy", "ref/{path}.npy")
    text = (
        LAYERS.replace("out/", "out/**/").replace("layer*", "*").replace("pairs.layers", 'pairs."n-{stem}"')
    )
    assert [pair.name for pair in suite(text).pairs] == ["n-{path}"]


def test_two_pairs_of_one_name_are_an_error_that_names_both(files: Files) -> None:
    files("out/layer1.npy", "out/b/layer1.npy", "ref/layer1.npy")
    nested = LAYERS.replace("out/", "out/**/")
    names = [pair.name for pair in suite(nested).pairs]
    assert names == ["layers/b/layer1", "layers/layer1"]
    assert problem(nested.replace("pairs.layers", 'pairs."layers/{stem}"')) == (
        "suite.toml: [pairs.\"layers/{stem}\"]: out/layer1.npy makes a second pair named 'layers/layer1', "
        "expected one, "
        'after out/b/layer1.npy of [pairs."layers/{stem}"]; rename a table or a file'
    )
    explicit = DIGITS.replace("digits", '"layers/layer1"')
    assert problem(explicit + LAYERS) == (
        "suite.toml: [pairs.layers]: out/layer1.npy makes a second pair named 'layers/layer1', expected one, "
        'after q.npy of [pairs."layers/layer1"]; rename a table or a file'
    )


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
@pytest.mark.parametrize("name", ["x", "{stem}", "x-{path}"])
@pytest.mark.parametrize("file", ["a\n::error::b", "##[x]", "\x1b[31m", "::warning", "bad\udcff"])
def test_a_name_made_from_a_file_is_as_harmless_as_others(files: Files, name: str, file: str) -> None:
    files(f"out/{file}.npy")
    (pair,) = pairs(f"[pairs.'{name}']\npredictions = 'out/*.npy'\ntargets = 'p'").values()
    assert (pair.predictions, harmless(pair.name)) == (f"out/{file}.npy", pair.name)
    assert pair.name.isprintable()


def test_a_name_that_a_long_one_of_a_file_makes_too_long_is_refused(files: Files) -> None:
    files(f"out/{'n' * 200}.npy")
    said = problem("[pairs.x]\npredictions = 'out/*.npy'\ntargets = 'p'")
    assert said.startswith(f"suite.toml: [pairs.x]: the name 'x/{'n' * 58}…' has 202 characters, expected at")


# Files that are no suites


def test_a_suite_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputNotFound, match=r"^gone\.toml: no such file$"):
        read_suite("gone.toml")


def test_a_directory_is_no_suite() -> None:
    with pytest.raises(InputError, match=r"^\.: a directory, expected a regular file$"):
        read_suite(".")


def test_a_file_in_another_encoding_says_where() -> None:
    Path("suite.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(FormatError) as caught:
        read_suite("suite.toml")
    assert str(caught.value) == (
        "suite.toml: byte 5 is 0xe9, expected TOML in UTF-8; save it in that encoding"
    )


def test_a_huge_file_is_not_read() -> None:
    with open("suite.toml", "wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(FormatError) as caught:
        read_suite("suite.toml")
    assert str(caught.value) == (
        "suite.toml: 16777217 bytes, expected a suite of at most 16777216; name another file"
    )


def test_each_error_is_of_the_kind_a_caller_would_catch(files: Files) -> None:
    files("out/layer1.npy")
    for text, kind in (("axis = 1", UsageError), ("?", FormatError), (LAYERS, InputNotFound)):
        with pytest.raises(kind):
            suite(text)


# Whatever a file says

KEYS = st.sampled_from(
    (
        *("pairs", "groups", "defaults", "baseline", "predictions", "targets", "group", "limits", "allow"),
        *("allow_unmatched", "g", "x/{stem}", "out", "log-softmax"),
        *OPTIONS,
    )
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
TEXTS = st.sampled_from(
    [
        "out/*.npy",
        "ref/{stem}.npy",
        "**",
        "[!",
        "out/[a-\\",
        "g",
        "out/{stem}*::x",
        "::",
        "*{stem}",
        "/*",
        "[[a]",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SCALARS = st.booleans() | st.integers() | st.floats() | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
SETTINGS = st.dictionaries(KEYS, VALUES, max_size=2)
PAIR_TABLES = st.fixed_dictionaries(
    {"predictions": TEXTS, "targets": TEXTS},
    optional={"mask": TEXTS, "group": st.just("g"), "allow_unmatched": st.booleans(), "axis": VALUES},
)
SUITES = st.dictionaries(KEYS, VALUES, max_size=5) | st.fixed_dictionaries(
    {"pairs": st.dictionaries(KEYS, PAIR_TABLES | SETTINGS, min_size=1, max_size=3)},
    optional={"defaults": SETTINGS, "groups": st.dictionaries(st.just("g"), SETTINGS), "baseline": TEXTS},
)


def toml(value: Any) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(key)} = {toml(inner)}' for key, inner in value.items())}}}"
        case _:
            return str(value)


def outcome(text: str) -> Suite | str:
    """What is read, or the line of an error; anything else that is raised is a defect."""
    Path("suite.toml").write_text(text, "utf-8", newline="")
    try:
        return read_suite("suite.toml")
    except KldivError as error:
        return str(error)


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dump")
    for name in ("out/a.npy", "out/b.npy", "ref/a.npy", "ref/b.npy"):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"x")
    return path


@settings(derandomize=True, max_examples=100, deadline=None)
@given(tables=SUITES)
def test_no_tables_raise_anything_but_our_own_errors(dump: Path, tables: dict[str, Any]) -> None:
    os.chdir(dump)
    obtained = outcome("\n".join(f"{toml(key)} = {toml(value)}" for key, value in tables.items()))
    event(type(obtained).__name__)
    if isinstance(obtained, str):
        assert obtained.isprintable()
        assert obtained.startswith("suite.toml: ")
    else:
        assert obtained.pairs
        assert all(
            pair.name.isprintable() and pair.options.keys() <= OPTIONS.keys() for pair in obtained.pairs
        )


@settings(derandomize=True, max_examples=80, deadline=None)
@given(contents=st.binary(max_size=40) | st.text("[]{}=.\"'\n\\ab1-:#", max_size=40).map(str.encode))
def test_no_bytes_raise_anything_but_our_own_errors(dump: Path, contents: bytes) -> None:
    os.chdir(dump)
    Path("suite.toml").write_bytes(contents)
    with pytest.raises(KldivError, match=r"^suite\.toml: "):
        read_suite("suite.toml")


# URLs


def test_a_url_is_left_as_it_is_wherever_the_suite_lies(files: Files) -> None:
    text = '[pairs.x]\npredictions = "s3://b/q.h5::/x"\ntargets = "https://h/p.npy?s=1::[0:3]"\n'
    pair = pairs(text + 'loss = "bce"\nweight = "gs://b/w.npy"\n', "deep/suite.toml")["x"]
    assert (pair.predictions, pair.targets) == ("s3://b/q.h5::/x", "https://h/p.npy?s=1::[0:3]")
    assert pair.options["weight"] == "gs://b/w.npy"


def test_targets_of_a_glob_may_be_objects(files: Files) -> None:
    files("out/layer1.npy", "out/layer2.npy")
    assert addresses(LAYERS.replace("ref/{stem}", "s3://ref/{stem}")) == {
        "layers/layer1": ("out/layer1.npy", "s3://ref/layer1.npy"),
        "layers/layer2": ("out/layer2.npy", "s3://ref/layer2.npy"),
    }


@pytest.mark.parametrize(
    "pattern", ["s3://b/layer*.npy", "gs://b/layer?.npy", "https://me:pw@h/[ab].npy?s=1"]
)
def test_a_wildcard_in_a_url_is_refused(files: Files, pattern: str) -> None:
    with pytest.raises(UsageError, match="has a wildcard, but URLs are not listed; name each") as raised:
        pairs(LAYERS.replace("out/layer*.npy", pattern))
    assert "pw" not in str(raised.value)


def test_a_stem_beside_a_url_has_nothing_to_stand_for(files: Files) -> None:
    with pytest.raises(UsageError, match="expected it only where the predictions have a wildcard"):
        pairs(LAYERS.replace("out/layer*.npy", "s3://b/layer1.npy"))
