"""A batch that goes on: what the journal has is not computed again, and nothing else comes of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dumps import pair_in, write_dump, write_pair

from kldiv_cli import resume
from kldiv_cli.batch import Begin
from kldiv_cli.batch_pair import BatchPair, Outputs
from kldiv_cli.batch_summary import LossSummary
from kldiv_cli.batch_totals import BatchTotals
from kldiv_cli.execution import Threads
from kldiv_cli.journal import open_journal
from kldiv_cli.pair_stamps import Stamps
from kldiv_cli.processes import Processes
from kldiv_cli.report.batch import batch_lines
from kldiv_cli.resume import is_finished, resume_batch
from kldiv_cli.spec import resolve_spec

Computed = list[str]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Computed:
    """The names of the pairs that were computed since it was last cleared."""
    names: Computed = []
    original = resume.run_batch

    def counting(pairs: Sequence[BatchPair], *arguments: Any, **options: Any) -> Any:
        names.extend(pair.name for pair in pairs)
        return original(pairs, *arguments, **options)

    monkeypatch.setattr(resume, "run_batch", counting)
    return names


def run(
    pairs: Sequence[BatchPair], journal: Path | None, version: str = "1", *, most: int | None = None
) -> dict[str, str]:
    """The JSON lines of a batch by pair; `most` of them are waited for."""
    stamps = Stamps(pairs, version)
    lines, found = batch_lines("jsonl", resolve_spec()), {}
    if journal is None:
        results = resume_batch(pairs, Threads(2), stamps=stamps)
        return {result.name: lines.pair(result) for result, _ in results}
    with open_journal(str(journal)) as opened:
        results = resume_batch(pairs, Threads(2), journal=opened, stamps=stamps)
        for result, from_journal in results:
            assert result.name not in found
            found[result.name] = lines.pair(result)
            assert is_finished(next(p for p in pairs if p.name == result.name), opened, stamps) == (
                result.error is None
            )
            assert not (from_journal and result.error)
            if most is not None and len(found) == most:
                break
        results.close()
    return found


def test_without_a_journal_all_is_computed(tmp_path: Path, computed: Computed) -> None:
    pairs = write_dump(tmp_path, 5)
    assert run(pairs, None) == run(pairs, None)
    assert len(computed) == 10


def test_what_is_finished_is_not_computed_again_and_reads_the_same(
    tmp_path: Path, computed: Computed
) -> None:
    pairs = write_dump(tmp_path, 9)
    undisturbed = run(pairs, None)
    computed.clear()
    begun = run(pairs, tmp_path / "j", most=4)
    computed.clear()
    assert run(pairs, tmp_path / "j") == undisturbed
    # Those that were told, and no others, were taken from the journal.
    assert sorted(computed) == sorted(undisturbed.keys() - begun.keys())
    computed.clear()
    assert run(pairs, tmp_path / "j") == undisturbed
    assert computed == []


def _content(tmp_path: Path, pairs: list[BatchPair]) -> None:
    np.save(tmp_path / "q" / "002.npy", np.load(tmp_path / "q" / "002.npy") + np.float32(0.5))


def _targets(tmp_path: Path, pairs: list[BatchPair]) -> None:
    _touch(tmp_path / "p" / "002.npy")


def _touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))


def _setting(tmp_path: Path, pairs: list[BatchPair]) -> None:
    pairs[2] = pair_in(tmp_path, "002", resolve_spec(log_softmax=-1, temperature=2.0))


def _other_file(tmp_path: Path, pairs: list[BatchPair]) -> None:
    pairs[2] = replace(pairs[2], targets=pairs[3].targets)


def _gone(tmp_path: Path, pairs: list[BatchPair]) -> None:
    os.unlink(tmp_path / "p" / "002.npy")


@pytest.mark.parametrize("change", [_content, _targets, _setting, _other_file, _gone])
def test_what_has_changed_is_computed_again(
    tmp_path: Path, computed: Computed, change: Callable[[Path, list[BatchPair]], None]
) -> None:
    pairs = write_dump(tmp_path, 6)
    run(pairs, tmp_path / "j")
    change(tmp_path, pairs)
    computed.clear()
    again = run(pairs, tmp_path / "j")
    assert computed == ["002"]
    assert again == run(pairs, None)


def test_what_failed_is_computed_again_until_it_is_mended(tmp_path: Path, computed: Computed) -> None:
    pairs = write_dump(tmp_path, 4)
    for name in ("001", "003"):
        os.unlink(tmp_path / "p" / f"{name}.npy")
    run(pairs, tmp_path / "j")
    for _ in range(2):
        computed.clear()
        run(pairs, tmp_path / "j")
        assert computed == ["001", "003"]
    for name in ("001", "003"):
        write_pair(tmp_path, name)
    assert run(pairs, tmp_path / "j") == run(pairs, None)
    computed.clear()
    run(pairs, tmp_path / "j")
    assert computed == []


def test_what_is_new_is_computed_and_what_is_left_out_is_not_told(tmp_path: Path, computed: Computed) -> None:
    pairs = write_dump(tmp_path, 6)
    run(pairs[:4], tmp_path / "j")
    computed.clear()
    assert run(pairs[2:], tmp_path / "j") == run(pairs[2:], None)
    assert computed[:2] == ["004", "005"]


def test_what_another_version_has_computed_is_computed_again(tmp_path: Path, computed: Computed) -> None:
    pairs = write_dump(tmp_path, 3)
    run(pairs, tmp_path / "j")
    computed.clear()
    run(pairs, tmp_path / "j", "2")
    assert len(computed) == 3


# Maps


def mapped(directory: Path, pairs: Sequence[BatchPair], *, force: bool = False) -> list[BatchPair]:
    return [
        replace(pair, outputs=Outputs(str(directory / "maps" / f"{pair.name}.npy"), force=force))
        for pair in pairs
    ]


def test_a_pair_whose_map_is_gone_is_computed_again(tmp_path: Path, computed: Computed) -> None:
    pairs = mapped(tmp_path, write_dump(tmp_path, 4))
    first = run(pairs, tmp_path / "j")
    (tmp_path / "maps" / "001.npy").unlink()
    computed.clear()
    assert run(pairs, tmp_path / "j") == first
    assert computed == ["001"]
    assert (tmp_path / "maps" / "001.npy").exists()


def test_a_map_of_an_earlier_run_is_replaced_and_what_was_there_before_is_not(tmp_path: Path) -> None:
    pairs = mapped(tmp_path, write_dump(tmp_path, 4))
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "003.npy").write_bytes(b"a user's own")
    first = run(pairs, tmp_path / "j")
    assert "exists; overwrite it with --force" in first["003"]
    # A pair that had its map when the run was killed, but not yet its line.
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(line for line in lines if b'"001","status":"ok"' not in line))
    _content(tmp_path, pairs)
    again = run(pairs, tmp_path / "j")
    assert {name for name, line in again.items() if '"error"' in line} == {"003"}
    assert again["001"] == first["001"]
    expected = run(mapped(tmp_path / "other", pairs), None)
    assert {**again, "003": expected["003"]} == expected
    for name in ("000", "001", "002"):
        files = [directory / "maps" / f"{name}.npy" for directory in (tmp_path, tmp_path / "other")]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert (tmp_path / "maps" / "003.npy").read_bytes() == b"a user's own"


def test_a_map_that_was_there_is_replaced_if_that_is_asked_for(tmp_path: Path, computed: Computed) -> None:
    pairs = mapped(tmp_path, write_dump(tmp_path, 2), force=True)
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "001.npy").write_bytes(b"a user's own")
    run(pairs, tmp_path / "j")
    assert np.load(tmp_path / "maps" / "001.npy").shape == (6, 5)
    computed.clear()
    run(mapped(tmp_path, pairs), tmp_path / "j")
    assert computed == [], "whether to replace does not change what there is"


def put_own(pairs: Sequence[BatchPair]) -> list[Path]:
    """Files of the user's where the maps go of which there are none."""
    places = [Path(address) for pair in pairs for address in pair.outputs.addresses]
    own = [place for place in places if not place.exists()]
    for place in own:
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"a user's own")
    return own


def test_a_journal_that_is_used_elsewhere_does_not_take_what_is_there_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B"):
        (tmp_path / name).mkdir()
        write_dump(tmp_path / name, 2)
    pairs = mapped(Path(), [pair_in(Path(), name, resolve_spec(log_softmax=-1)) for name in ("000", "001")])
    monkeypatch.chdir(tmp_path / "A")
    run(pairs, tmp_path / "j")
    monkeypatch.chdir(tmp_path / "B")
    for name in ("000", "001"):
        _touch(Path("q") / f"{name}.npy")
    (own,) = put_own(pairs[:1])
    again = run(pairs, tmp_path / "j")
    assert "exists; overwrite it with --force" in again["000"]
    assert own.read_bytes() == b"a user's own"
    for name in ("A", "B"):
        monkeypatch.chdir(tmp_path / name)
        _touch(Path("q/001.npy"))
        assert '"error"' not in run(pairs, tmp_path / "j")["001"], "in both it is the journal's"


@pytest.mark.parametrize("most", [1, None])
@pytest.mark.parametrize("large", [1 << 20, 0])
def test_where_a_run_wrote_no_map_it_has_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int | None, large: int
) -> None:
    monkeypatch.setattr("kldiv_cli.batch._LARGE", large)
    pairs = [replace(pair, size=1) for pair in mapped(tmp_path, write_dump(tmp_path, 40))]
    os.unlink(tmp_path / "p" / "000.npy")
    run(pairs, tmp_path / "j", most=most)
    own = put_own(pairs)
    assert own
    write_pair(tmp_path, "000")
    again = run(pairs, tmp_path / "j")
    assert sum("exists; overwrite it with --force" in line for line in again.values()) == len(own)
    assert {place.read_bytes() for place in own} == {b"a user's own"}


def test_once_it_is_stopped_no_more_pairs_are_begun(tmp_path: Path) -> None:
    """Not even to find that the workers are gone."""
    (pair,) = write_dump(tmp_path, 1)
    pairs = mapped(tmp_path, [replace(pair, name=f"{number:04}") for number in range(2000)])
    with open_journal(str(tmp_path / "j")) as journal, Processes(1) as processes:
        results = resume_batch(pairs, processes, journal=journal, stamps=Stamps(pairs, "1"))
        next(results)
        results.close()
        begun = [pair.name for pair in pairs if journal.begun(pair.name)]
    entries = [json.loads(line)["entry"] for line in (tmp_path / "j").read_text().splitlines()[1:]]
    assert len({entry["pair"] for entry in entries}) < 1000, "far fewer are on their way at any time"
    assert begun == [name for name in begun if (tmp_path / "maps" / f"{name}.npy").exists()]


def test_what_was_to_be_replaced_and_was_not_is_still_the_users_own(tmp_path: Path) -> None:
    pairs = mapped(tmp_path, write_dump(tmp_path, 1), force=True)
    (own,) = put_own(pairs)
    os.unlink(tmp_path / "p" / "000.npy")
    run(pairs, tmp_path / "j")
    write_pair(tmp_path, "000")
    assert "exists; overwrite" in run(mapped(tmp_path, pairs), tmp_path / "j")["000"]
    assert own.read_bytes() == b"a user's own"
    run(pairs, tmp_path / "j")
    _touch(tmp_path / "q" / "000.npy")
    assert '"error"' not in run(mapped(tmp_path, pairs), tmp_path / "j")["000"], "it is the journal's by now"


def test_a_pair_that_is_computed_again_does_not_hold_for_what_it_was_before(
    tmp_path: Path, computed: Computed
) -> None:
    """Its map may be the new one when the run is killed, and its input what it was when another begins."""
    pairs = mapped(tmp_path, write_dump(tmp_path, 1))
    run(pairs, tmp_path / "j")
    before = (tmp_path / "q" / "000.npy").stat()
    _touch(tmp_path / "q" / "000.npy")
    run(pairs, tmp_path / "j")
    lines = (tmp_path / "j").read_bytes().splitlines(keepends=True)
    (tmp_path / "j").write_bytes(b"".join(lines[:-1]))
    os.utime(tmp_path / "q" / "000.npy", ns=(before.st_atime_ns, before.st_mtime_ns))
    computed.clear()
    run(pairs, tmp_path / "j")
    assert computed == ["000"]


def test_a_file_that_somebody_puts_there_meanwhile_stays_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = mapped(tmp_path, write_dump(tmp_path, 1))
    theirs = Path(str(pairs[0].outputs.output))
    original = resume.run_batch

    def quicker(*arguments: Any, begin: Begin, **options: Any) -> Any:
        def begun(pair: BatchPair) -> BatchPair:
            sent = begin(pair)
            theirs.parent.mkdir()
            theirs.write_bytes(b"precious")
            return sent

        return original(*arguments, begin=begun, **options)

    monkeypatch.setattr(resume, "run_batch", quicker)
    assert "exists" in run(pairs, tmp_path / "j")["000"]
    monkeypatch.undo()
    assert "exists" in run(pairs, tmp_path / "j")["000"]
    assert theirs.read_bytes() == b"precious"


def test_what_could_not_be_looked_at_is_computed_again(tmp_path: Path, computed: Computed) -> None:
    pairs = write_dump(tmp_path, 1)
    hidden, shown = tmp_path / "hidden.npy", tmp_path / "q" / "000.npy"
    for _ in range(2):
        os.replace(shown, hidden)
        stamps = Stamps(pairs, "1")
        os.replace(hidden, shown)
        with open_journal(str(tmp_path / "run.jsonl")) as journal:
            (resumed,) = resume_batch(pairs, Threads(1), journal=journal, stamps=stamps)
        assert resumed.result.error is None
        assert not resumed.from_journal
    assert len(computed) == 2


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_what_was_replaced_before_its_turn_and_put_back_is_computed_again(
    tmp_path: Path, computed: Computed, kind: str
) -> None:
    (pair,) = write_dump(tmp_path, 1)
    file, first, second = (tmp_path / f"{name}.{kind}" for name in ("file", "first", "second"))
    for number, place in enumerate((file, second)):
        _write_as(kind, place, np.load(pair.predictions) * np.float32(number + 1))
    pairs = [replace(pair, predictions=str(file))]
    stamps = Stamps(pairs, "1")
    os.rename(file, first)
    os.rename(second, file)
    with open_journal(str(tmp_path / "j")) as journal:
        list(resume_batch(pairs, Threads(1), journal=journal, stamps=stamps))
    os.rename(file, second)
    os.rename(first, file)
    computed.clear()
    again = run(pairs, tmp_path / "j")
    assert computed == ["000"]
    assert again == run(pairs, None)


def _write_as(kind: str, place: Path, array: np.ndarray[Any, Any]) -> None:
    if kind == "zarr":
        zarr = pytest.importorskip("zarr")
        zarr.save_array(str(place), array)
    else:
        with open(place, "wb") as file:
            np.save(file, array)


def test_what_may_lie_in_other_files_is_computed_again(tmp_path: Path, computed: Computed) -> None:
    pairs = [replace(pair, allow_external=True) for pair in write_dump(tmp_path, 2)]
    for _ in range(2):
        with open_journal(str(tmp_path / "j")) as journal:
            list(resume_batch(pairs, Threads(1), journal=journal, stamps=Stamps(pairs, "1")))
    assert len(computed) == 4


def test_values_of_no_use_to_the_totals_are_left_out_of_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more of them than are kept of all pairs; what all come to is the same with a journal and without."""
    pairs = write_dump(tmp_path, 4, rows=5)
    monkeypatch.setattr(resume, "LIMIT", 12)

    def totals(journal: Path | None) -> LossSummary:
        found, stamps = BatchTotals(kept=12), Stamps(pairs, "1")
        with contextlib.ExitStack() as stack:
            opened = None if journal is None else stack.enter_context(open_journal(str(journal)))
            for result, _ in resume_batch(pairs, Threads(1), journal=opened, stamps=stamps):
                found.add(result)
        (of_kl,) = found.losses
        return of_kl

    undisturbed, first = totals(None), totals(tmp_path / "j")
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()[1:]]
    held = [sorted({"values", "histogram"} & line["totals"]["kl"]["losses"].keys()) for line in lines]
    assert held == [["values"], ["values"], ["histogram"], ["histogram"]]
    assert repr(undisturbed) == repr(first) == repr(totals(tmp_path / "j"))
    assert not first.statistics.exact
