"""What a finished pair holds for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dumps import write_dump

from kldiv_cli.batch_pair import BatchPair, Outputs
from kldiv_cli.batch_plan import plan
from kldiv_cli.pair import Pair
from kldiv_cli.pair_stamps import InputStamp, Stamps, stamp_of


@pytest.fixture
def planned(tmp_path: Path) -> BatchPair:
    """A pair of files that are there, with a mask."""
    write_dump(tmp_path, ["a"])
    np.save(tmp_path / "mask.npy", np.ones(6, np.uint8))
    addresses = {"predictions": str(tmp_path / "q/a.npy"), "targets": str(tmp_path / "p/a.npy")}
    options = {"log_softmax": -1, "mask": str(tmp_path / "mask.npy")}
    given = Pair(name="a", **addresses, options=options)
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


def test_every_part_of_a_stamp_tells_runs_apart() -> None:
    known = InputStamp("a.h5::/x[0:3]", 1, 2)
    stamps = [
        stamp_of({"predictions": known}, {"axis": 0}),
        stamp_of({"targets": known}, {"axis": 0}),
        stamp_of({"predictions": known}, {"axis": 1}),
        *(
            stamp_of({"predictions": known._replace(**change)}, {"axis": 0})
            for change in (
                {"address": "a.h5::/x[0:4]"},
                {"size": 2},
                {"mtime_ns": 3},
                {"etag": "e"},
                {"address_digest": "d"},
            )
        ),
    ]
    assert len({json.dumps(stamp, allow_nan=False) for stamp in stamps}) == len(stamps)
