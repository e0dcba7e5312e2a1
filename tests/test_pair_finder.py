"""Where the pairs of a batch come from: every way to say it, and every way to say it wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cases import repeatable
from hypothesis import event, given
from hypothesis import strategies as st

from kldiv_cli.errors import InputError, InputNotFound, KldivError, UsageError
from kldiv_cli.pair_files import Unmatched
from kldiv_cli.pair_finder import PairSet, find_pair_set


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")


def dump(file: str, *paths: str) -> None:
    with h5py.File(file, "a") as container:
        for path in paths:
            container[path] = np.ones(1)


def found(*arguments: str, options: Mapping[str, Any] | None = None, **others: Any) -> PairSet:
    first, second = (*arguments, None, None)[:2]
    return find_pair_set(first, second, options=options or {}, **others)


def slashed(text: str) -> str:
    return text.replace(os.sep, "/")


def pairs(*arguments: str, **others: Any) -> dict[str, tuple[str, ...]]:
    """The addresses of each pair by its name, those of its options behind them."""
    return {
        pair.name: tuple(map(slashed, (pair.predictions, pair.targets, *pair.options.values())))
        for pair in found(*arguments, **others).pairs
    }


def unmatched(*arguments: str, **others: Any) -> list[tuple[str, str]]:
    alone = found(*arguments, allow_unmatched=True, **others).unmatched
    return [(slashed(one.address), one.role) for one in alone]


def problem(*arguments: str, **others: Any) -> str:
    with pytest.raises(KldivError) as caught:
        found(*arguments, **others)
    said = str(caught.value)
    assert "\n" not in said
    return slashed(said)


# Suites and tables

SUITE = '[defaults]\naxis = 1\n[pairs.a]\npredictions = "a.npy"\ntargets = "s3://b/{}.npy"\n'


def test_a_suite_is_read_and_its_own_options_win() -> None:
    Path("suite.toml").write_text(SUITE.format("p"))
    (pair,) = found("suite.toml", options={"axis": 0, "loss": "bce"}).pairs
    assert (pair.targets, pair.options) == ("s3://b/p.npy", {"axis": 1, "loss": "bce"})


def test_an_option_that_was_typed_must_be_taken_by_some_pair() -> None:
    """Those of a suite or a row win; what nothing takes would be ignored."""
    Path("pairs.csv").write_text("predictions,targets,axis,loss\na.npy,p.npy,1,bce\nb.npy,p.npy,,bce\n")
    options = {"axis": 0, "loss": ("bce",)}
    assert [pair.options["axis"] for pair in found("pairs.csv", options=options, typed=options).pairs] == [
        1,
        0,
    ]
    Path("suite.toml").write_text(SUITE.format("p"))
    assert problem("suite.toml", options={"axis": 0}, typed=["axis"]) == (
        "axis: suite.toml says otherwise of each pair, expected a pair that takes it; "
        "drop it, or change it there"
    )
    assert found("suite.toml", options={"axis": 1}, typed=["axis"]).pairs
    assert found("suite.toml", options={"axis": 0}).pairs, "what stands there by itself takes nobody in"


def test_what_a_suite_leaves_out_is_told_by_its_own_word_or_by_the_argument() -> None:
    files("out/a.npy", "out/b.npy", "ref/a.npy", "ref/c.npy")
    text = '[pairs.x]\npredictions = "out/*.npy"\ntargets = "ref/{stem}.npy"\n'
    Path("suite.toml").write_text(text)
    assert "allow_unmatched = true" in problem("suite.toml")
    assert unmatched("suite.toml") == [("out/b.npy", "predictions"), ("ref/c.npy", "targets")]
    Path("suite.toml").write_text(text + "allow_unmatched = true\n")
    assert found("suite.toml").unmatched == found("suite.toml", allow_unmatched=True).unmatched != ()
    Path("suite.toml").write_text(text + "allow_unmatched = false\n")
    assert "no file ref/b.npy" in problem("suite.toml", allow_unmatched=True)


def test_a_suite_passes_urls_through_even_with_wildcards_and_stems() -> None:
    files("sub/out/a.npy")
    Path("sub/suite.toml").write_text(
        'baseline = "b.json"\n'
        '[pairs.a]\npredictions = "https://h/a.npy?x=*"\ntargets = "gs://b/p.h5::/x"\n'
        '[pairs.b]\npredictions = "out/*.npy"\ntargets = "s3://b/{stem}.npy"\n'
    )
    assert pairs("sub/suite.toml") == {
        "a": ("https://h/a.npy?x=*", "gs://b/p.h5::/x"),
        "b/a": ("sub/out/a.npy", "s3://b/a.npy"),
    }


@pytest.mark.parametrize("path", ["t.csv", "t.CSV"])
def test_a_table_is_read_with_the_given_options_as_defaults(path: str) -> None:
    Path(path).write_text("predictions,targets,axis\na.npy,b.npy,\nc.npy,d.npy,1\n")
    assert [pair.options for pair in found(path, options={"axis": 0}).pairs] == [{"axis": 0}, {"axis": 1}]


def test_a_dash_is_a_table_on_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in").write_text('{"predictions": "a", "targets": "b"}')
    with open("in") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert pairs("-") == {"a": ("a", "b")}


# Directories


def test_files_of_two_directories_are_matched_by_their_paths() -> None:
    files("out/a.npy", "out/deep/er/a.NPZ", "out/b.h5", "out/notes.txt", "out/.hidden.npy", "out/.h/x.npy")
    files("ref/a.npy", "ref/deep/er/a.hdf5", "ref/b.h5", "ref/README.md")
    assert pairs("out", "ref/") == {
        "a": ("out/a.npy", "ref/a.npy"),
        "b": ("out/b.h5", "ref/b.h5"),
        "deep/er/a": ("out/deep/er/a.NPZ", "ref/deep/er/a.hdf5"),
    }


def test_the_same_path_goes_before_another_suffix() -> None:
    files("out/a.npy", "ref/a.npy", "ref/a.npz")
    assert pairs("out", "ref", allow_unmatched=True) == {"a": ("out/a.npy", "ref/a.npy")}
    assert unmatched("out", "ref") == [("ref/a.npz", "targets")]


def test_two_files_that_could_be_the_partner_are_an_error() -> None:
    files("out/a.npy", "ref/a.h5", "ref/a.npz")
    said = problem("out", "ref", allow_unmatched=True)
    assert said.startswith("out/a.npy: could go with ref/a.h5, ref/a.npz, expected one file on each side;")


def test_names_keep_the_suffix_where_it_tells_files_apart() -> None:
    files("out/a.npy", "out/a.npz", "out/b.npy", "ref/a.npy", "ref/a.npz", "ref/b.npy")
    assert list(pairs("out", "ref")) == ["a.npy", "a.npz", "b"]


def test_a_zarr_directory_is_one_file() -> None:
    files("out/a.zarr/c/0.npy", "out/b.npy", "ref/a.npy", "ref/b.zarr/.zarray")
    assert pairs("out", "ref") == {"a": ("out/a.zarr", "ref/a.npy"), "b": ("out/b.npy", "ref/b.zarr")}
    assert pairs("out/a.zarr", "ref/b.zarr") == {"out/a": ("out/a.zarr", "ref/b.zarr")}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_linked_directories_are_searched_but_not_in_circles() -> None:
    files("store/a.npy", "out/b.npy", "ref/a/a.npy", "ref/b.npy")
    Path("out/a").symlink_to("../store", target_is_directory=True)
    Path("store/up").symlink_to("..", target_is_directory=True)
    assert pairs("out", "ref", allow_unmatched=True).keys() == {"a/a", "b"}


def test_weights_and_masks_are_matched_if_they_are_directories_and_shared_if_files() -> None:
    files("out/a.npy", "out/b.npy", "ref/a.npy", "ref/b.npy", "m/a.npz", "m/b.npy", "m/c.npy", "w.npy")
    assert pairs("out", "ref", options={"mask": "m", "weight": "w.npy"}) == {
        "a": ("out/a.npy", "ref/a.npy", "m/a.npz", "w.npy"),
        "b": ("out/b.npy", "ref/b.npy", "m/b.npy", "w.npy"),
    }
    Path("m/b.npy").unlink()
    said = problem("out", "ref", options={"mask": "m"}, allow_unmatched=True)
    assert said == (
        "m: no mask for out/b.npy, expected a file of the same path; add them, or name one file for all"
    )


@pytest.mark.parametrize("role", ["mask", "weight", "pos_weight"])
def test_path_and_stem_of_a_mask_stand_for_the_files_of_two_directories(role: str) -> None:
    files("out/a.npy", "out/x/b.npz", "ref/a.npy", "ref/x/b.npy")
    assert pairs("out", "ref", options={role: "m/{path}_{stem}.h5::/{stem}"}) == {
        "a": ("out/a.npy", "ref/a.npy", "m/a_a.h5::/a"),
        "x/b": ("out/x/b.npz", "ref/x/b.npy", "m/x/b_b.h5::/b"),
    }


UNKNOWN = "has {foo}, expected {stem} or {path} there; mend it, or list the pairs in a table with an address"


def test_an_unknown_placeholder_is_refused_once_and_before_a_pattern_is_looked_for() -> None:
    files("out/a.npy", "ref/a.npy")
    assert problem("out", "ref", options={"mask": "m/{foo}.npy"}).startswith(
        f"--mask: 'm/{{foo}}.npy' {UNKNOWN}"
    )
    assert problem("none/*.npy", "ref/{foo}.npy").startswith(f"SECOND: 'ref/{{foo}}.npy' {UNKNOWN}")
    written = {"predictions": "none/*.npy", "targets": "ref/{stem}.h5::/{foo}"}
    assert problem(**written).startswith(f"--targets: 'ref/{{stem}}.h5::/{{foo}}' {UNKNOWN}")
    written |= {"targets": "ref/{stem}.npy"}
    assert problem(**written, options={"weight": "{foo}"}).startswith(f"--weight: '{{foo}}' {UNKNOWN}")


def test_a_file_of_a_name_like_a_placeholder_may_be_the_same_for_all() -> None:
    files("out/a.npy", "{foo}.npy")
    assert pairs("out/*.npy", "{foo}.npy") == {"a": ("out/a.npy", "{foo}.npy")}
    assert "has {bar}" in problem("out/*.npy", "{foo}.npy::/{bar}")


def test_an_unknown_placeholder_for_groups_is_refused() -> None:
    dump("d.h5", "l1/q", "l1/p")
    asked = {"group_by": "/l*", "predictions": "q", "targets": "p"}
    said = problem("d.h5", **asked, options={"mask": "m.h5::/{path}"})
    assert said.startswith("--mask: 'm.h5::/{path}' has {path}, expected {group} there; mend it, or list the")


@pytest.mark.parametrize("listed", ["suite.toml", "pairs.csv"])
def test_a_placeholder_in_what_is_the_same_for_all_listed_pairs_is_refused(listed: str) -> None:
    Path("suite.toml").write_text(SUITE.format("p"))
    Path("pairs.csv").write_text("predictions,targets\na.npy,p.npy\n")
    assert problem(listed, options={"mask": "m/{path}.npy"}).startswith(
        "--mask: 'm/{path}.npy' has {path}, expected none: it is the same for all pairs; mend it, or list"
    )


def test_an_address_that_must_be_a_directory_of_a_store_is_refused_for_what_it_is() -> None:
    files("out/a.npy", "ref/a.npy")
    said = "'s3://b/out/' is a directory, but URLs are not listed; name each object in a table of pairs, or"
    assert problem("s3://b/out/", "s3://b/ref/").startswith(f"FIRST: {said}")
    assert problem("out", "ref", options={"mask": "s3://b/out/"}).startswith(f"--mask: {said}")
    for arguments in (("out", "s3://b/ref"), ("s3://b/ref", "out")):
        assert problem(*arguments) == (
            "s3://b/ref: not here, expected a directory beside out, for URLs are not listed; "
            "copy it here, or name each object in a table of pairs"
        )
    store = ("s3://b/o.zarr/", "s3://b/p.zarr/x/")
    assert list(pairs(*store).values()) == [store]


def test_directories_that_are_not_there_are_not_taken_for_files() -> None:
    assert problem("none/", "ref/").startswith("none/: no such directory, expected one beside ref/")


def test_what_has_no_partner_on_either_side_is_told_at_once() -> None:
    files("out/a.npy", *(f"out/lost{k}.npy" for k in range(7)), "ref/a.npy", "ref/z.npy")
    lost = ", ".join(f"out/lost{k}.npy" for k in range(5))
    assert problem("out", "ref") == (
        f"out ref: no targets for {lost} and 2 more and no predictions for ref/z.npy, "
        "expected a partner for each; add them, or leave such out with --allow-unmatched"
    )
    left = found("out", "ref", allow_unmatched=True)
    assert [pair.name for pair in left.pairs] == ["a"]
    assert left.unmatched[0] == Unmatched(os.path.join("out", "lost0.npy"), "predictions")
    assert left.unmatched[-1] == Unmatched(os.path.join("ref", "z.npy"), "targets")


def test_that_nothing_is_left_is_always_an_error() -> None:
    files("out/a.npy", "ref/b.npy", "text/a.txt", "empty/.keep")
    assert problem("out", "ref", allow_unmatched=True) == (
        "out ref: no pairs and no targets for out/a.npy and no predictions for ref/b.npy, "
        "expected at least one; mend the names or the dump"
    )
    assert problem("out", "text", allow_unmatched=True).startswith(
        "text: 1 file, none of them of arrays, expected"
    )
    assert problem("empty", "ref").startswith("empty: no files, expected some with one of the")


def test_a_directory_that_can_not_be_listed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(directory: str) -> Any:
        if slashed(directory) == "out/b":
            raise PermissionError(13, "Permission denied", directory)
        return scandir(directory)

    files("out/a.npy", "out/b/c.npy", "ref/a.npy", "ref/b/c.npy")
    assert len(pairs("out", "ref")) == 2
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", denied)
    assert "out/b: Permission denied, expected a directory that can be" in problem("out", "ref")


PATHS = st.sets(st.from_regex(r"(x/|y/z/)?[ab]\.(npy|npz|h5|txt)", fullmatch=True), min_size=1, max_size=8)


@repeatable(60)
@given(PATHS, PATHS)
def test_every_file_of_arrays_is_in_one_pair_or_without_a_partner(out: set[str], ref: set[str]) -> None:
    for top in ("out", "ref"):
        shutil.rmtree(top, ignore_errors=True)
    files(*(f"out/{path}" for path in out), *(f"ref/{path}" for path in ref))
    try:
        obtained = found("out", "ref", allow_unmatched=True)
    except InputError as error:
        event(type(error).__name__)
        return
    event(f"{len(obtained.pairs)} pairs")
    for top, paths, role in (("out", out, "predictions"), ("ref", ref, "targets")):
        paired = [slashed(getattr(pair, role)) for pair in obtained.pairs]
        alone = [slashed(one.address) for one in obtained.unmatched if one.role == role]
        assert sorted(paired + alone) == sorted(f"{top}/{path}" for path in paths if path[-4:] != ".txt")
    for pair in obtained.pairs:
        (_, one), (_, other) = (slashed(path).split("/", 1) for path in (pair.predictions, pair.targets))
        assert os.path.splitext(one)[0] == os.path.splitext(other)[0]
        assert one == other or (other not in out and one not in ref)


# Globs


def globs(predictions: str, targets: str, **others: Any) -> dict[str, tuple[str, ...]]:
    return pairs(predictions=predictions, targets=targets, **others)


def test_each_match_of_a_glob_is_a_pair_named_by_its_path_below_the_pattern() -> None:
    files("out/a.npy", "out/b.npy", "ref/a.h5", "ref/b.h5", "m/a.npy", "m/b.npy")
    expected = {
        "a": ("out/a.npy", "ref/a.h5::/p", "m/a.npy"),
        "b": ("out/b.npy", "ref/b.h5::/p", "m/b.npy"),
    }
    assert globs("out/*.npy", "ref/{stem}.h5::/p", options={"mask": "m/{stem}.npy"}) == expected
    assert pairs("out/*.npy", "ref/{stem}.h5::/p", options={"mask": "m/{stem}.npy"}) == expected


def test_path_stands_for_the_way_to_a_match() -> None:
    files("out/x/a.npy", "out/y/a.npy", "out/b.npy", "ref/x/a.npy", "ref/y/a.npy", "ref/b.npy")
    assert globs("out/**/*.npy", "ref/{path}.npy") == {
        "b": ("out/b.npy", "ref/b.npy"),
        "x/a": ("out/x/a.npy", "ref/x/a.npy"),
        "y/a": ("out/y/a.npy", "ref/y/a.npy"),
    }


def test_path_and_stem_may_stand_together_and_in_a_suite() -> None:
    files("out/x/a.npy", "ref/x/a/a_p.npy", "ref/x/b/b_p.npy", "ref/x/b/c_p.npy")
    expected = [("ref/x/b/b_p.npy", "targets")]
    written = {"predictions": "out/**/*.npy", "targets": "ref/{path}/{stem}_p.npy"}
    assert globs(**written, allow_unmatched=True) == {"x/a": ("out/x/a.npy", "ref/x/a/a_p.npy")}
    assert unmatched(**written) == expected
    lines = "\n".join(f'{key} = "{value}"' for key, value in written.items())
    Path("suite.toml").write_text(f'[pairs."all/{{path}}"]\n{lines}\nallow_unmatched = true\n')
    assert list(pairs("suite.toml")) == ["all/x/a"]
    assert unmatched("suite.toml") == expected


def test_a_lost_prediction_of_a_path_is_missed_only_where_the_glob_would_match_it() -> None:
    files("out/x/a.npy", "ref/x/a.npy", "ref/x/b.npy", "ref/y/z/c.npy", "ref/d.txt", "ref/.h/e.npy")
    assert unmatched(predictions="out/*/*.npy", targets="ref/{path}.npy") == [("ref/x/b.npy", "targets")]
    assert unmatched(predictions="out/**/*.npy", targets="ref/{path}.npy") == [
        ("ref/x/b.npy", "targets"),
        ("ref/y/z/c.npy", "targets"),
    ]


def test_matches_are_named_by_their_paths_and_with_their_suffixes_where_those_tell_them_apart() -> None:
    files("out/x/a.npy", "out/x/c.npy", "out/y/a.npy", "out/y/a.npz", "out/b.npy", "p.npy")
    assert list(globs("out/**/*", "p.npy")) == ["b", "x/a", "x/c", "y/a.npy", "y/a.npz"]


def test_a_name_does_not_change_with_the_other_files_that_match() -> None:
    files("out/x/a.npy", "p.npy")
    assert list(globs("out/*/*.npy", "p.npy")) == ["x/a"]
    files("out/y/a.npy")
    assert list(globs("out/*/*.npy", "p.npy")) == ["x/a", "y/a"]


def test_names_do_not_depend_on_what_is_left_out() -> None:
    files("out/x/a.npy", "out/y/a.npy", "ref/x/a.npy")
    assert list(globs("out/*/*.npy", "ref/{path}.npy", allow_unmatched=True)) == ["x/a"]


def test_globs_tell_what_has_no_partner_on_both_sides() -> None:
    files("out/a.npy", "out/b.npy", "ref/a.npy", "ref/c.npy")
    written = {"predictions": "out/*.npy", "targets": "ref/{stem}.npy"}
    assert problem(**written).startswith(
        "--predictions out/*.npy: no targets for out/b.npy and no predictions for ref/c.npy, expected a"
    )
    assert unmatched(**written) == [("out/b.npy", "predictions"), ("ref/c.npy", "targets")]


def test_a_glob_without_matches_speaks_of_the_working_directory() -> None:
    assert problem(predictions="out/*.npy", targets="p.npy") == (
        "--predictions: no file matches 'out/*.npy', expected at least one, "
        "seen from the working directory '.'; mend the pattern or the dump"
    )


@pytest.mark.parametrize("placeholder", ["{stem}", "{path}"])
def test_a_placeholder_without_a_glob_is_an_error(placeholder: str) -> None:
    assert f"'ref/{placeholder}.npy' has {placeholder}, expected it only where the predictions have" in (
        problem("a.npy", f"ref/{placeholder}.npy")
    )


@pytest.mark.parametrize("way", ["arguments", "options"])
def test_two_addresses_are_one_pair(way: str) -> None:
    addresses = ("out/d.h5::/logits[0:10]", "s3://b/p.npy")
    obtained = pairs(*addresses) if way == "arguments" else globs(*addresses)
    assert obtained == {"out/d/logits[0:10]": addresses}


# Groups


def test_each_group_of_a_file_is_a_pair_of_the_datasets_that_are_named() -> None:
    dump("d.h5", "layer1/logits", "layer1/probs", "layer2/logits", "layer2/probs", "other/logits")
    assert pairs("d.h5", group_by="/layer*", predictions="logits", targets="/probs") == {
        "layer1": ("d.h5::/layer1/logits", "d.h5::/layer1/probs"),
        "layer2": ("d.h5::/layer2/logits", "d.h5::/layer2/probs"),
    }


def test_groups_that_lack_one_or_both_are_unmatched() -> None:
    dump("d.h5", "l1/q", "l1/p", "l2/q", "l3/p", "l4/x", "count")
    asked = {"group_by": "/*", "predictions": "q", "targets": "p"}
    assert unmatched("d.h5", **asked) == [
        ("d.h5::/l2/q", "predictions"),
        ("d.h5::/l3/p", "targets"),
        ("d.h5::/l4", "group"),
    ]
    assert problem("d.h5", **asked) == (
        "d.h5: no targets for d.h5::/l2/q and no predictions for d.h5::/l3/p and neither predictions nor "
        "targets in d.h5::/l4, expected a partner for each; add them, or leave such out with "
        "--allow-unmatched"
    )


def test_groups_around_are_not_missed_by_a_pattern_of_all_below() -> None:
    dump("d.h5", "m/l1/attn/q", "m/l1/attn/p", "q", "p")
    assert pairs("d.h5", group_by="/**", predictions="q", targets="p") == {
        "/": ("d.h5::/q", "d.h5::/p"),
        "m/l1/attn": ("d.h5::/m/l1/attn/q", "d.h5::/m/l1/attn/p"),
    }


def test_named_datasets_may_be_in_two_files() -> None:
    dump("s.h5", "l1/x/q", "l2/x/q")
    dump("t.h5", "l1/q", "l3/q")
    asked = {"group_by": "/l*", "predictions": "x/q", "targets": "q"}
    assert pairs("s.h5", "t.h5", **asked, allow_unmatched=True) == {"l1": ("s.h5::/l1/x/q", "t.h5::/l1/q")}
    assert unmatched("s.h5", "t.h5", **asked) == [
        ("s.h5::/l2/x/q", "predictions"),
        ("t.h5::/l3/q", "targets"),
    ]


def test_datasets_of_two_files_are_paired_by_their_paths_directly_and_below_groups() -> None:
    for file in ("s.h5", "t.h5"):
        dump(file, "l1/attn/x", "l1/y", "l2", "k")
    dump("s.h5", "l3")
    dump("t.h5", "l1/z")
    both = ["l1/attn/x", "l1/y", "l2"]
    expected = {name: (f"s.h5::/{name}", f"t.h5::/{name}") for name in both}
    assert pairs("s.h5", "t.h5", group_by="/l*", allow_unmatched=True) == expected
    assert unmatched("s.h5", "t.h5", group_by="/l*") == [
        ("s.h5::/l3", "predictions"),
        ("t.h5::/l1/z", "targets"),
    ]
    assert list(pairs("s.h5", "t.h5", group_by="/**", allow_unmatched=True)) == ["k", *both]


def test_a_mask_is_a_name_in_the_group_an_address_with_the_group_or_a_file_for_all() -> None:
    dump("s.h5", "l1/y", "l1/w", "l2/y", "l2/w")
    dump("t.h5", "l1/y", "l1/m", "l2/y", "l2/m")
    files("all.npy")
    options = {"mask": "m", "weight": "w", "pos_weight": "w/{group}.h5::/{group}"}
    for names in ({"predictions": "y", "targets": "y"}, {}):
        expected = {
            f"l{k}{'' if names else '/y'}": (
                f"s.h5::/l{k}/y",
                f"t.h5::/l{k}/y",
                f"t.h5::/l{k}/m",
                f"s.h5::/l{k}/w",
                f"w/l{k}.h5::/l{k}",
            )
            for k in (1, 2)
        }
        assert pairs("s.h5", "t.h5", group_by="/l*", options=options, **names) == expected
    for address in ("all.npy", "d.h5::/m", "s3://b/m.npy"):
        found_pairs = found("s.h5", "s.h5", group_by="/l*", options={"mask": address}).pairs
        assert {pair.options["mask"] for pair in found_pairs} == {address}


def test_a_mask_that_is_nowhere_is_an_error_that_says_what_it_could_be() -> None:
    dump("d.h5", "l1/q", "l1/p", "l1/m", "l2/q", "l2/p")
    asked = {"group_by": "/l*", "predictions": "q", "targets": "p"}
    assert problem("d.h5", **asked, options={"mask": "m"}) == (
        "--mask m: neither a file nor in '/l2', expected a dataset in each group, FILE, or an address "
        "with {group} in it; name one of these"
    )


def test_a_link_out_of_the_file_makes_a_pair_that_its_reader_refuses() -> None:
    dump("d.h5", "l1/q", "l1/p")
    dump("other.h5", "l/q", "l/p")
    with h5py.File("d.h5", "a") as container:
        container["l2"] = h5py.ExternalLink("other.h5", "/l")
    assert list(pairs("d.h5", group_by="/l*", predictions="q", targets="p")) == ["l1", "l2"]
    assert list(pairs("d.h5", "d.h5", group_by="/l*")) == ["l1/p", "l1/q", "l2"]


def test_a_name_that_ends_like_a_selection_is_taken_whole() -> None:
    dump("d.h5", "l[1]")
    assert pairs("d.h5", "d.h5", group_by="/*") == {"l[1]": ("d.h5::/l[1][...]", "d.h5::/l[1][...]")}


# What contradicts itself

WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], str]] = {
    "nothing": ((), {}, "no pairs, expected a suite, a table, two directories or files, or --predictions"),
    "no targets": ((), {"predictions": "a"}, "no --targets, expected it beside the other; add --targets"),
    "no predictions": ((), {"targets": "a"}, "no --predictions, expected it beside"),
    "both ways": (("a", "b"), {"predictions": "a", "targets": "b"}, "a b: there beside --predictions or"),
    "file and option": (("a",), {"targets": "b"}, "a: there beside --predictions or --targets, expected one"),
    "suite and file": (
        ("s.toml", "b"),
        {},
        "s.toml: names the pairs itself, expected no b beside it; drop",
    ),
    "table and options": (
        ("-",),
        {"predictions": "a", "targets": "b"},
        "-: names the pairs itself, expected no --predictions and no --targets beside it; drop them",
    ),
    "table and groups": (("t.csv",), {"group_by": "/*"}, "t.csv: names the pairs itself, expected an HDF5"),
    "one file": (("a.npy",), {}, "a.npy: alone, expected what it is held against, or a suite or a table"),
    "one HDF5": (
        ("d.h5",),
        {},
        "; give the targets behind it, or --group-by PATTERN with --predictions",
    ),
    "one directory": (("dir",), {}, "; give the directory of the targets behind it"),
    "directory and file": (
        ("dir", "d.h5"),
        {},
        "d.h5: no directory, but dir is one, expected two",
    ),
    "file and directory": (("d.h5", "dir"), {}, "d.h5: no directory, but dir is one"),
    "directory missing": (
        ("dir", "none"),
        {},
        "none: no such directory, expected one beside dir; mend",
    ),
    "a pattern beside a directory": (
        ("dir/*.npy", "dir"),
        {},
        "dir/*.npy: a pattern beside the directory dir, expected two directories, or 'dir/*.npy' "
        "'dir/{stem}.npy'; give two of a kind",
    ),
    "a directory beside a pattern": (
        ("dir", "other/*.npy"),
        {},
        "other/*.npy: a pattern beside the directory dir, expected two directories, or 'dir/*.npy' "
        "'other/{stem}.npy'; give two of a kind",
    ),
    "groups of nothing": ((), {"group_by": "/*"}, "--group-by without a file, expected an HDF5 file"),
    "groups of one": (("d.h5",), {"group_by": "/*"}, "; add --predictions NAME --targets NAME, or a second"),
    "one name": (
        ("d.h5",),
        {"group_by": "/*", "targets": "p"},
        "no --predictions, expected the names of",
    ),
    "same names": (
        ("d.h5",),
        {"group_by": "/*", "targets": "p", "predictions": "/p"},
        "--targets p: the predictions themselves, expected another dataset; name the targets",
    ),
    "address as name": (
        ("d.h5",),
        {"group_by": "/*", "targets": "p", "predictions": "d.h5::q"},
        "--predictions d.h5::q: expected the name of a dataset in each group with --group-by",
    ),
    "empty pattern": (("d.h5", "d.h5"), {"group_by": ""}, "--group-by '': expected a pattern of groups"),
    "groups of a directory": (("dir",), {"group_by": "/*"}, "dir: a directory, expected an HDF5 file"),
    "groups of an address": (("d.h5::/x",), {"group_by": "/*"}, "; put the group into --group-by"),
    "groups of a url": (("s3://b/d.h5",), {"group_by": "/*"}, "s3://b/d.h5: not here, expected an HDF5 file"),
    "groups of no file": (("no.h5",), {"group_by": "/*"}, "no.h5: no such file, expected an HDF5 file"),
    "no group": (("d.h5", "d.h5"), {"group_by": "/z*"}, "d.h5: nothing matches '/z*'; it has '/l'; mend"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_arguments_that_contradict_each_other_say_what_to_drop(mistake: str) -> None:
    dump("d.h5", "l/q", "l/p")
    files("dir/a.npy")
    arguments, options, said = WRONG[mistake]
    assert said in problem(*arguments, **options)


def test_errors_are_of_the_kind_a_caller_would_catch() -> None:
    files("out/a.npy", "ref/b.npy")
    for kind, arguments in (
        (UsageError, ("out",)),
        (InputNotFound, ("out", "none")),
        (InputNotFound, ("none.toml",)),
        (InputError, ("out", "ref")),
    ):
        with pytest.raises(kind):
            found(*arguments)


@pytest.mark.skipif(os.name == "nt", reason="a file can't have such a name there")
@pytest.mark.parametrize("way", [("out", "ref"), ("out/*", "ref/{path}.npy")])
def test_a_pair_is_found_whatever_its_files_are_called_and_named_as_it_can_be_shown(
    way: tuple[str, str],
) -> None:
    odd = {
        "a\nb": r"a\nb",
        "bad\udcff": r"bad\udcff",
        "::error::x": r"\u003a:error::x",
        "x##[y]": r"x##\u005by]",
        "n" * 230: "n" * 230,
        " ": " ",
    }
    files(*(f"{top}/{name}.npy" for top in ("out", "ref") for name in odd))
    assert pairs(*way) == {name: (f"out/{file}.npy", f"ref/{file}.npy") for file, name in odd.items()}


def test_a_group_whose_name_can_not_be_shown_is_a_pair_too() -> None:
    dump("d.h5", "l\n1/q", "l\n1/p")
    assert list(pairs("d.h5", group_by="/*", predictions="q", targets="p")) == [r"l\n1"]


def test_two_pairs_of_one_name_are_refused() -> None:
    files("out/a.npy", "out/a.npz", "out/a.npy.npy", "p.npy")
    said = problem(predictions="out/a*", targets="p.npy")
    assert "makes a second pair named 'a.npy', expected one, after" in said


def test_pairs_that_are_in_no_groups_are_found_without_hdf5() -> None:
    files("out/a.h5", "ref/a.h5")
    code = """
import sys
from kldiv_cli.pair_finder import find_pair_set
assert find_pair_set("out", "ref", options={}).pairs
assert "h5py" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
