"""Pairs to what is computed of them and what is refused before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kldiv_cli.batch_pair import NO_OUTPUTS, Outputs
from kldiv_cli.batch_plan import common_spec, plan
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
        ({"axis": 0}, "axis 0: contradicts "),
        ({"loss": "nonsense"}, "loss "),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_options_that_do_not_go_together_are_told_with_where_a_pair_has_its_own(
    options: dict[str, Any], expected: str
) -> None:
    odd = pair("odd", **options)
    for where, begin in (("pairs.csv, line 3", f"pairs.csv, line 3: {expected}"), ("", expected)):
        with pytest.raises(UsageError) as caught:
            plan([pair("fine"), replace(odd, where=where)], outputs=NO_OUTPUTS)
        assert str(caught.value).startswith(begin)


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
        (
            Outputs("x/{pair}.npy", "x/{pair}.npy"),
            UsageError,
            "distributions x/{pair}.npy: is the file",
        ),
        (Outputs("x/{pair}.npy", "x/./{pair}.npy"), UsageError, "pair 'a': x/./a.npy is written to twice"),
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
        assert "a.npy is written to twice, also as the journal; " in str(caught.value)
        assert plan([pair("b")], outputs=outputs, beside={"journal": beside})


def test_names_that_differ_in_case_are_one_file_where_the_system_takes_them_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outputs = Outputs(output="m/{pair}.npy")
    monkeypatch.setattr("kldiv_cli.batch_plan._CASELESS", False)
    assert len(plan([pair("layer"), pair("Layer")], outputs=outputs)) == 2
    monkeypatch.setattr("kldiv_cli.batch_plan._CASELESS", True)
    with pytest.raises(UsageError, match=r"m/Layer\.npy is written to twice, also as m/layer\.npy"):
        plan([pair("layer"), pair("Layer")], outputs=outputs)


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
    with pytest.raises(UsageError, match=r"^loss: a per-element map is of one loss"):
        plan([both], outputs=Outputs(output="{pair}.npy"))
    with pytest.raises(UsageError, match=r"^distributions: kl has losses of distributions"):
        plan([both], outputs=Outputs(distributions="{pair}.npy"))
