"""Pairs to what is computed of them, what is refused before, and what a finished pair holds for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dumps import write_dump

from kldiv_cli.batch_pair import NO_OUTPUTS, BatchPair, Outputs
from kldiv_cli.batch_plan import Stamps, common_spec, plan
from kldiv_cli.errors import KldivError, OutputError, UsageError
from kldiv_cli.pair import Pair
from kldiv_cli.spec import resolve_spec


def pair(name: str, q: str = "q.npy", p: str = "p.npy", **options: Any) -> Pair:
    return Pair(name=name, predictions=q, targets=p, options={"log_softmax": -1, **options})


# What is computed


def test_each_pair_has_its_own_options_files_and_outputs() -> None:
    outputs = Outputs("maps/{pair}.npy", "rows/{pair}/x.h5::/kl", "float32", force=True)
    one, other = plan(
        [pair("one"), pair("a/b", mask="m.npy", temperature=2.0, allow_external=True)], outputs=outputs
    )
    assert one.spec == resolve_spec(log_softmax=-1)
    assert other.spec == resolve_spec(log_softmax=-1, mask=True, temperature=2.0)
    assert (one.files, other.files) == ({}, {"mask": "m.npy"})
    assert (one.allow_external, other.allow_external) == (False, True)
    assert other.inputs == ("q.npy", "p.npy", "m.npy")
    assert one.outputs.addresses == ("maps/one.npy", "rows/one/x.h5::/kl")
    assert other.outputs == Outputs("maps/a/b.npy", "rows/a/b/x.h5::/kl", "float32", force=True)


def test_top1_is_counted_for_the_pairs_that_ask_for_it() -> None:
    planned = plan([pair("a", top1=True), pair("b", top1=False), pair("c")], outputs=NO_OUTPUTS)
    assert [each.spec.top1 for each in planned] == [True, False, False]


def test_one_pair_may_go_to_a_file_of_one_name() -> None:
    (planned,) = plan([pair("a")], outputs=Outputs(output="map.npy"))
    assert planned.outputs.output == "map.npy"


def test_pairs_of_many_kinds_share_columns_for_all_of_them() -> None:
    planned = plan(
        [
            pair("a", quantiles=(0.75,)),
            pair("b", loss="bce", quantiles=(0.25, 0.75), by_target=True),
            pair("c", worst=3, blocks_of=4),
        ],
        outputs=NO_OUTPUTS,
    )
    spec = common_spec(planned)
    assert spec.losses == ("kl", "bce")
    assert {0.25, 0.75} < set(spec.quantiles)
    assert spec.quantiles == tuple(sorted(spec.quantiles))
    assert (spec.by_target, spec.top1, spec.worst, spec.blocks_of) == (True, False, 3, 4)


# What is refused


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"axis": 0}, "pair 'odd': axis 0: contradicts "),
        ({"loss": "nonsense"}, "pair 'odd': loss "),
        ({"temperature": -1.0}, "pair 'odd': temperature"),
    ],
)
def test_options_that_do_not_go_together_name_their_pair(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan([pair("fine"), pair("odd", **options)], outputs=NO_OUTPUTS)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("outputs", "error", "expected"),
    [
        (Outputs(output="map.npy"), UsageError, "output map.npy: one file for 2 pairs, expected {pair} in "),
        (Outputs(distributions="x.npy"), UsageError, "distributions x.npy: one file for 2 pairs"),
        (Outputs(output="{pair}.csv"), UsageError, "output {pair}.csv: expected a name like map.npy"),
        (Outputs(output="{pair}"), UsageError, "output {pair}: expected a name like map.npy"),
        (
            Outputs(output="x.h5::/{pair}"),
            UsageError,
            "output x.h5::/{pair}: {pair} in the name of a dataset",
        ),
        (
            Outputs(output="s3://b/{pair}.npy"),
            OutputError,
            "output s3://b/{pair}.npy: a URL, expected a file",
        ),
        (Outputs(output="in/{pair}.npy"), OutputError, "in/b.npy: is the input in/b.npy; choose"),
        (Outputs(output="./in/../in/{pair}.npy"), OutputError, "./in/../in/b.npy: is the input in/b.npy"),
        (Outputs(output="link/{pair}.npy"), OutputError, "link/b.npy: is the input in/b.npy"),
        (Outputs(distributions="x/{pair}.h5::/in"), OutputError, "x/a.h5::/in: is the input x/a.h5::/q;"),
        (Outputs("x/{pair}.npy", "x/{pair}.npy"), UsageError, "pair 'a': x/a.npy is written to twice"),
        (Outputs(output="to/{pair}.npy"), OutputError, "to/b.npy: is the input in/b.npy"),
        (
            Outputs(output="m/{stem}-{pair}.npy"),
            UsageError,
            "output m/{stem}-{pair}.npy: has {stem}, expected {pair} there",
        ),
        (Outputs(distributions="{path}.npy"), UsageError, "distributions {path}.npy: has {path}, expected "),
        (Outputs(output="{pair}.h5::/{group}"), UsageError, "output {pair}.h5::/{group}: has {group}, "),
    ],
)
def test_outputs_that_can_not_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: Outputs, error: type[KldivError], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "b.npy").symlink_to("../in/b.npy")
    with pytest.raises(error) as caught:
        plan([pair("a", "q.npy", "in/b.npy"), pair("b", "x/a.h5::/q", "p.npy")], outputs=outputs)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize("beside", ["m/a.npy", "./m/../m/a.npy", "link"])
def test_what_the_run_itself_writes_is_no_file_of_a_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    (tmp_path / "link").symlink_to("m/a.npy")
    for outputs in (
        Outputs(output="m/{pair}.npy"),
        Outputs(distributions=str(tmp_path / "m" / "{pair}.npy")),
    ):
        with pytest.raises(UsageError) as caught:
            plan([pair("b"), pair("a")], outputs=outputs, beside={"results": "r.csv", "journal": beside})
        assert "a.npy is written to twice, also as the journal " in str(caught.value)
        assert plan([pair("b")], outputs=outputs, beside={"journal": beside})


def test_two_names_that_are_one_path_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^pair 'x//a': m/x//a.npy is written to twice, also as m/x/a.npy"):
        plan([pair("x/a"), pair("x//a")], outputs=Outputs(output="m/{pair}.npy"))


@pytest.mark.parametrize("name", ["..", "../a", "a/../../b"])
def test_a_name_that_leads_elsewhere_is_refused_where_it_is_part_of_a_path(name: str) -> None:
    assert plan([pair(name)], outputs=Outputs(output="map.npy"))
    with pytest.raises(UsageError, match="would lie outside of its directory"):
        plan([pair(name)], outputs=Outputs(output="m/{pair}.npy"))


@pytest.mark.parametrize(
    ("name", "template"), [("/abs/o", "{pair}.npy"), ("", "{pair}/o.npy"), (".", "m/.{pair}/o.npy")]
)
def test_a_name_that_leads_elsewhere_by_where_it_stands_is_refused(name: str, template: str) -> None:
    with pytest.raises(UsageError, match="would lie outside of its directory"):
        plan([pair("b"), pair(name)], outputs=Outputs(output=template))
    (below,) = plan([pair(name)], outputs=Outputs(output="/m/x{pair}y.npy"))
    assert below.outputs.output == f"/m/x{name}y.npy"


def test_a_map_is_of_one_loss_and_distributions_are_of_kl() -> None:
    both = pair("odd", loss=("kl", "bce"))
    with pytest.raises(UsageError, match=r"^pair 'odd': loss: a per-element map is of one loss"):
        plan([both], outputs=Outputs(output="{pair}.npy"))
    with pytest.raises(UsageError, match=r"^pair 'odd': distributions: kl has losses of distributions"):
        plan([both], outputs=Outputs(distributions="{pair}.npy"))


# Files


@pytest.fixture
def planned(tmp_path: Path) -> BatchPair:
    """A pair of files that are there, with a mask."""
    write_dump(tmp_path, ["a"])
    np.save(tmp_path / "mask.npy", np.ones(6, np.uint8))
    files = {"mask": str(tmp_path / "mask.npy")}
    options = {"mask": files["mask"]}
    given = pair("a", str(tmp_path / "q/a.npy"), str(tmp_path / "p/a.npy"), **options)
    return plan([given], outputs=Outputs(output=str(tmp_path / "m/{pair}.npy")))[0]


def test_a_pair_is_as_large_as_its_files_of_which_others_have_their_share(planned: BatchPair) -> None:
    sizes = {address: os.path.getsize(address) for address in planned.inputs}
    assert Stamps([planned], "1").sized(planned).size == sum(sizes.values())
    other = replace(planned, name="b", targets=planned.predictions + "::/x[0:3]")
    stamps = Stamps([planned, other], "1")
    q, p, mask = sizes.values()
    assert stamps.sized(planned).size == q // 2 + p + mask // 2
    assert stamps.sized(other).size == q // 2 + mask // 2


def test_a_file_that_is_not_there_has_no_size_and_a_stamp_without_one(planned: BatchPair) -> None:
    missing = replace(planned, targets="missing.npy", files={})
    stamps = Stamps([missing], "1")
    assert stamps.sized(missing).size == os.path.getsize(missing.predictions)
    assert stamps.of(missing)["inputs"]["targets"] == {"address": "missing.npy"}


def test_the_stamp_of_what_is_as_it_was_is_the_same(planned: BatchPair) -> None:
    assert Stamps([planned], "1").of(planned) == Stamps([planned], "1").of(replace(planned))
    forced = replace(planned, outputs=planned.outputs._replace(force=True))
    assert Stamps([planned], "1").of(planned) == Stamps([forced], "1").of(forced)


@pytest.mark.parametrize("role", ["predictions", "targets", "mask"])
@pytest.mark.parametrize("how", ["touched", "grown", "moved", "gone"])
def test_the_stamp_changes_with_each_file(planned: BatchPair, role: str, how: str) -> None:
    before = Stamps([planned], "1").of(planned)
    address = {"predictions": planned.predictions, "targets": planned.targets, **planned.files}[role]
    status = os.stat(address)
    changed = planned
    if how == "touched":
        os.utime(address, ns=(status.st_atime_ns, status.st_mtime_ns + 1000))
    elif how == "grown":
        with open(address, "ab") as file:
            file.write(b"\0")
        os.utime(address, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif how == "gone":
        os.unlink(address)
    else:
        os.rename(address, address + "2")
        moved = {role: address + "2"}
        changed = replace(planned, files=moved) if role == "mask" else replace(planned, **moved)  # type: ignore[arg-type]
    assert Stamps([changed], "1").of(changed) != before


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 2.0},
        {"zero_policy": "torch"},
        {"quantiles": (0.25,)},
        {"worst": 1},
        {"top1": True},
        {"ignore_value": float("nan")},
        {"broadcast": True},
        {"trim_axis": True},
        {"blocks_of": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_stamp_changes_with_each_setting(planned: BatchPair, change: dict[str, Any]) -> None:
    changed = replace(planned, spec=replace(planned.spec, **change))
    assert Stamps([changed], "1").of(changed) != Stamps([planned], "1").of(planned)


def test_the_stamp_changes_with_the_version_and_the_outputs(planned: BatchPair) -> None:
    before = Stamps([planned], "1").of(planned)
    assert Stamps([planned], "2").of(planned) != before
    for change in ({"output": "other.npy"}, {"output_dtype": "float16"}, {"distributions": "d.npy"}):
        changed = replace(planned, outputs=planned.outputs._replace(**change))
        assert Stamps([changed], "1").of(changed) != before
    external = replace(planned, allow_external=True)
    assert Stamps([external], "1").of(external) != before
