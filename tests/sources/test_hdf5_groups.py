"""Paths in an HDF5 file that match a pattern, by links that stay in it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from kldiv_cli.errors import DatasetError, FormatError, InputNotFound
from kldiv_cli.sources.hdf5_groups import Member, list_members


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def dump(*paths: str, file: str = "dump.h5") -> None:
    """A file with a dataset at each path, and a group where it ends with a slash."""
    with h5py.File(file, "a") as container:
        for path in paths:
            if path.endswith("/"):
                container.create_group(path)
            else:
                container[path] = np.ones(1)


def matched(pattern: str) -> list[str]:
    return [member.name for member in list_members("dump.h5", pattern)]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/layer*", ["/layer1", "/layer10", "/layer2"]),
        ("layer*/", ["/layer1", "/layer10", "/layer2"]),
        ("/layer?", ["/layer1", "/layer2"]),
        ("/layer[!2]", ["/layer1"]),
        ("/layer1", ["/layer1"]),
        ("/*/attn", ["/layer1/attn", "/layer2/attn"]),
        ("/layer2/*", ["/layer2/attn", "/layer2/x"]),
        ("/**/attn", ["/layer1/attn", "/layer2/attn", "/top/deep/attn"]),
        ("/top/**", ["/top", "/top/deep", "/top/deep/attn", "/top/deep/attn/x"]),
        ("/**/deep/**/x", ["/top/deep/attn/x"]),
        ("/", ["/"]),
    ],
)
def test_a_star_stays_within_a_name_and_two_cross_groups(pattern: str, found: list[str]) -> None:
    dump("layer1/attn/x", "layer2/attn/x", "layer2/x", "layer10/", "other/x", "top/deep/attn/x")
    assert matched(pattern) == found


def test_a_name_with_brackets_matches_itself_and_what_it_stands_for() -> None:
    dump("layer[1]/x", "layer1/x")
    assert matched("/layer[1]") == ["/layer1", "/layer[1]"]


def test_a_match_is_a_group_with_all_datasets_below_or_a_dataset() -> None:
    dump("layer1/attn/x", "layer1/y", "layer1/empty/", "layer2")
    with h5py.File("dump.h5", "a") as container:
        container["layer1/type"] = np.dtype("f4")
    assert list_members("dump.h5", "/layer*") == [
        Member("/layer1", "group", frozenset({"attn/x", "y"})),
        Member("/layer2", "dataset"),
    ]


def test_of_names_a_group_tells_which_it_has() -> None:
    dump("layer1/attn/x", "layer1/y")
    (member,) = list_members("dump.h5", "/layer1", ["y", "attn/x", "attn/z", "none/x", "y/x"])
    assert member.inside == {"y", "attn/x"}


def test_hard_and_soft_links_in_the_file_are_followed_where_a_name_matches() -> None:
    dump("layer1/x")
    with h5py.File("dump.h5", "a") as container:
        container["layer2"] = container["layer1"]
        container["layer3"] = h5py.SoftLink("/layer1")
        container["latest"] = h5py.SoftLink("layer3")
        container["layer1/again"] = h5py.SoftLink("x")
    inside = frozenset({"x", "again"})
    assert list_members("dump.h5", "/layer*") == [Member(f"/layer{k}", "group", inside) for k in (1, 2, 3)]
    assert matched("/latest/*") == ["/latest/again", "/latest/x"]


def test_links_out_of_the_file_and_to_nowhere_are_told_and_not_followed() -> None:
    dump("layer1/x")
    dump("secret/x", file="other.h5")
    with h5py.File("dump.h5", "a") as container:
        container["layer2"] = h5py.ExternalLink("other.h5", "/secret")
        container["layer3"] = h5py.SoftLink("/nowhere")
        container["layer4"] = h5py.SoftLink("/layer2")
        container["layer1/out"] = h5py.ExternalLink("other.h5", "/secret/x")
    assert list_members("dump.h5", "/layer*") == [
        Member("/layer1", "group", frozenset({"x", "out"})),
        *(Member(f"/layer{k}", "link") for k in (2, 3, 4)),
    ]
    with pytest.raises(DatasetError):
        list_members("dump.h5", "/layer2/*")


def test_circles_and_diamonds_of_links_come_to_an_end() -> None:
    dump("a/x")
    with h5py.File("dump.h5", "a") as container:
        container["a/up"] = container["/"]
        container["a/soft"] = h5py.SoftLink("/a/soft")
        for k in range(40):
            group = container.require_group(f"d{k}")
            container[f"d{k + 1}/left"] = container[f"d{k + 1}/right"] = group
    assert "/a/x" in matched("/**")
    assert list_members("dump.h5", "/a")[0].inside >= {"x"}


def test_what_does_not_match_is_an_error_that_shows_what_there_is() -> None:
    dump(*(f"g{k}/x" for k in range(7)))
    with pytest.raises(DatasetError) as caught:
        list_members("dump.h5", "/layer*")
    assert str(caught.value) == (
        "dump.h5: nothing matches '/layer*'; it has '/g0', '/g1', '/g2', '/g3', '/g4' and 2 more; "
        "mend the pattern or the dump"
    )


def test_a_file_that_is_missing_or_no_hdf5_is_an_error() -> None:
    with pytest.raises(InputNotFound):
        list_members("dump.h5", "/*")
    Path("dump.h5").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match=r"^dump\.h5: damaged or unreadable HDF5"):
        list_members("dump.h5", "/*")


def test_names_in_any_encoding_are_listed() -> None:
    dump("läyer/x")
    with h5py.File("dump.h5", "a") as container:
        h5py.h5g.create(container.id, b"layer\xff")
    assert matched("/*") == ["/layer\udcff", "/läyer"]
