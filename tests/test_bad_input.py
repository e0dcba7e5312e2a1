"""What can't be computed: exit code 2, nothing on stdout, one line on stderr, nothing left behind."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest

import kldiv_cli
from kldiv_cli.__main__ import main
from kldiv_cli.buffers import Buffer
from kldiv_cli.errors import InputChanged
from kldiv_cli.sources import open_source

Array = npt.NDArray[Any]
Completed = subprocess.CompletedProcess[str]

COMMAND = [sys.executable, "-m", "kldiv_cli", "compute"]
SHAPE = (6, 4)
POSIX = pytest.mark.skipif(os.name != "posix", reason="the platform has no such files")


def probabilities(seed: int = 7, shape: tuple[int, ...] = SHAPE) -> Array:
    values = np.random.default_rng(seed).random(shape)
    return values / values.sum(-1, keepdims=True)


PREDICTIONS, TARGETS = probabilities(1), probabilities(2)


def kl_sum(targets: Array, predictions: Array) -> float:
    return float((targets * np.log(targets / predictions)).sum())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: log-probabilities in q.npy, probabilities in q-probs.npy and p.npy."""
    monkeypatch.chdir(tmp_path)
    np.save("q.npy", np.log(PREDICTIONS))
    np.save("q-probs.npy", PREDICTIONS)
    np.save("p.npy", TARGETS)
    return tmp_path


@pytest.fixture(autouse=True)
def _sigterm_as_before() -> Iterator[None]:
    """`main` takes the signal for itself; here it is called in the process of the tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def run(*arguments: str) -> Completed:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=30)


def check_line(stderr: str, *fragments: str) -> None:
    assert stderr.startswith("kldiv: error: ")
    assert stderr.endswith("\n")
    assert len(stderr.splitlines()) == 1
    for fragment in fragments:
        assert fragment in stderr


def check_failure(folder: Path, arguments: list[str], *fragments: str) -> None:
    """Run the process, and assert that it fails as it should and leaves the folder as it was."""
    before = listing(folder)
    completed = run(*arguments)
    check_line(completed.stderr, *fragments)
    assert completed.returncode == 2
    assert completed.stdout == ""
    assert listing(folder) == before


def check_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], *fragments: str) -> None:
    """The same in this process, where a new one would show nothing more."""
    code = main(["compute", *arguments])
    captured = capsys.readouterr()
    check_line(captured.err, *fragments)
    assert code == 2
    assert captured.out == ""


def test_the_pair_that_these_tests_spoil_is_good(folder: Path) -> None:
    completed = run("q.npy", "p.npy", "--reduction", "sum", "--json")
    assert completed.returncode == 0
    assert completed.stderr == ""


# Files that are not arrays


def npy(contents: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, contents, allow_pickle=True)
    return file.getvalue()


SPOILT: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "empty file"),
    "wrong magic": (b"\x93NUMPX" + npy(TARGETS)[6:], "neither .npy, .npz nor HDF5"),
    "text": (b"0.25 0.75\n0.5 0.5\n", "neither .npy, .npz nor HDF5"),
    "truncated header": (npy(TARGETS)[:60], "truncated"),
    "truncated data": (npy(TARGETS)[:-1], "truncated: 191 bytes of data, expected 192"),
    "header of 4 GiB, version 2": (
        b"\x93NUMPY\x02\0\xff\xff\xff\xff" + bytes(99),
        "header of 4294967295 bytes",
    ),
    "header of 4 GiB, version 3": (
        b"\x93NUMPY\x03\0\xff\xff\xff\xff" + bytes(99),
        "header of 4294967295 bytes",
    ),
    "objects": (npy(np.array([{}, 1], dtype=object)), "dtype object"),
    "fields": (npy(np.zeros(SHAPE, [("x", "f4"), ("y", "f4")])), "structured dtype with fields x, y"),
    "complex": (npy(TARGETS.astype("c16")), "dtype complex128"),
    "strings": (npy(np.full(SHAPE, "x")), "dtype <U1"),
    "garbage HDF5": (
        b"\x89HDF\r\n\x1a\n" + np.random.default_rng(3).bytes(3000),
        "damaged or unreadable HDF5",
    ),
    "garbage zip": (b"PK\x03\x04" + np.random.default_rng(4).bytes(3000), "damaged .npz archive"),
}


@pytest.mark.parametrize(("contents", "reason"), SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_no_array_is_one_line_that_names_it(
    folder: Path, contents: bytes, reason: str
) -> None:
    (folder / "bad.npy").write_bytes(contents)
    check_failure(folder, ["bad.npy", "p.npy"], "bad.npy: ", reason)


def test_spoilt_targets_are_named_as_spoilt_predictions_are(folder: Path) -> None:
    (folder / "bad.npy").write_bytes(npy(TARGETS)[:-1])
    check_failure(folder, ["q.npy", "bad.npy"], "bad.npy: truncated")


def test_a_missing_file_is_named(folder: Path) -> None:
    check_failure(folder, ["missing.npy", "p.npy"], "missing.npy: no such file")


def test_a_directory_is_named(folder: Path) -> None:
    check_failure(folder, [".", "p.npy"], ".: a directory")


@POSIX
def test_a_fifo_without_a_writer_does_not_hang(folder: Path) -> None:
    os.mkfifo("fifo.npy")
    check_failure(folder, ["fifo.npy", "p.npy"], "fifo.npy: a pipe (FIFO)")


@POSIX
def test_symbolic_links_in_a_circle_are_named(folder: Path) -> None:
    os.symlink("loop.npy", "loop.npy")
    check_failure(folder, ["loop.npy", "p.npy"], "loop.npy: ")


@pytest.mark.skipif(sys.platform != "linux", reason="names need not be text on Linux only")
def test_a_name_with_line_breaks_escapes_and_stray_bytes_is_shown_on_one_line(folder: Path) -> None:
    check_failure(folder, ["new\nline\x1b[31m\udcff.npy", "p.npy"], "\\x1b[31m\\udcff.npy: no such file")


def test_a_truncated_hdf5_file_is_named(folder: Path) -> None:
    with h5py.File("bad.h5", "w") as file:
        file["p"] = TARGETS
    os.truncate("bad.h5", 1000)
    check_failure(folder, ["q.npy", "bad.h5"], "bad.h5: ", "truncated")


def test_a_truncated_archive_is_named(folder: Path) -> None:
    np.savez_compressed("bad.npz", p=TARGETS)
    os.truncate("bad.npz", 150)
    check_failure(folder, ["q.npy", "bad.npz"], "bad.npz: damaged .npz archive")


def test_an_archive_with_damage_in_its_data_is_named(folder: Path) -> None:
    np.savez_compressed("bad.npz", p=probabilities(5, (100, 100)))
    contents = bytearray(Path("bad.npz").read_bytes())
    contents[len(contents) // 2] ^= 0xFF
    Path("bad.npz").write_bytes(contents)
    np.save("q.npy", np.log(probabilities(6, (100, 100))))
    check_failure(folder, ["q.npy", "bad.npz"], "bad.npz: ")


def test_a_missing_member_is_named_and_the_others_listed(folder: Path) -> None:
    np.savez("a.npz", probs=TARGETS)
    check_failure(folder, ["q.npy", "a.npz::logits"], "a.npz: no array 'logits'", "'probs' (6, 4) float64")


# Datasets


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_two_arrays_that_could_be_meant_are_listed_with_shape_and_dtype(folder: Path, ending: str) -> None:
    if ending == "npz":
        np.savez("a.npz", probs=TARGETS.astype("f4"), labels=np.zeros(6, "u1"))
    else:
        with h5py.File("a.h5", "w") as file:
            file["probs"], file["labels"] = TARGETS.astype("f4"), np.zeros(6, "u1")
    check_failure(
        folder, ["q.npy", f"a.{ending}"], f"a.{ending}: 2 ", "probs' (6, 4) float32", "labels' (6,) uint8"
    )


def test_a_group_where_a_dataset_is_meant_is_named(folder: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file["group/p"] = TARGETS
    check_failure(folder, ["q.npy", "a.h5::/group"], "a.h5: '/group' is a group", "'/group/p' (6, 4) float64")


def test_a_soft_link_loop_is_named(folder: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
    check_failure(folder, ["q.npy", "a.h5::a"], "a.h5: 'a' follows more than 32 links")


def test_a_dataset_that_was_never_written_is_named(folder: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("p", SHAPE, "f8")
    check_failure(folder, ["q.npy", "a.h5"], "a.h5: 24 of 24 values never written")


def test_a_dataset_with_missing_chunks_is_named(folder: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("p", SHAPE, "f8", chunks=(2, 4))[:2] = TARGETS[:2]
    check_failure(folder, ["q.npy", "a.h5::p"], "a.h5::p: 2 of 3 chunks never written")


def link_out() -> None:
    with h5py.File("other.h5", "w") as file:
        file["padding"] = np.zeros(99)
        file["p"] = TARGETS
    with h5py.File("a.h5", "w") as file:
        file["padding"] = np.ones(99)
        file["x"] = h5py.ExternalLink("other.h5", "/p")


def store_outside() -> None:
    with h5py.File("a.h5", "w") as file:
        file.create_dataset("x", SHAPE, "f8", external=[("raw.bin", 0, TARGETS.nbytes)])[:] = TARGETS


def map_virtually() -> None:
    with h5py.File("other.h5", "w") as file:
        file["p"] = TARGETS
    layout = h5py.VirtualLayout(SHAPE, "f8")
    layout[:] = h5py.VirtualSource("other.h5", "p", SHAPE)
    with h5py.File("a.h5", "w") as file:
        file.create_virtual_dataset("x", layout)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (link_out, "a link into 'other.h5'"),
        (store_outside, "external storage"),
        (map_virtually, "virtual dataset"),
    ],
    ids=["external link", "external storage", "virtual dataset"],
)
def test_data_in_other_files_is_refused_and_read_right_when_allowed(
    folder: Path, make: Callable[[], None], reason: str
) -> None:
    make()
    check_failure(folder, ["q.npy", "a.h5::x"], "a.h5", reason, "--allow-external")
    completed = run("q.npy", "a.h5::x", "--allow-external", "--reduction", "sum", "--json")
    assert (completed.returncode, completed.stderr) == (0, "")
    found = re.search(r'"sum": ([^,\s}]+)', completed.stdout)
    assert found is not None
    assert float(found[1]) == pytest.approx(kl_sum(TARGETS, PREDICTIONS), rel=1e-12)


# Arrays that do not belong together


def test_shapes_that_differ_are_named(folder: Path) -> None:
    np.save("short.npy", TARGETS[:5])
    check_failure(folder, ["q.npy", "short.npy"], "q.npy (6, 4)", "short.npy (5, 4)", "expected equal shapes")


@pytest.mark.parametrize(
    ("targets", "hint"),
    [
        (np.zeros(6, "i8"), "--targets-are labels"),
        (np.ones((6, 3)) / 3, "is one padded? --trim-axis cuts it to 3"),
        (np.ones((1, 4)) / 4, "--broadcast"),
    ],
    ids=["labels", "padding", "broadcasting"],
)
def test_shapes_that_differ_in_a_known_way_come_with_a_hint(
    folder: Path, capsys: pytest.CaptureFixture[str], targets: Array, hint: str
) -> None:
    np.save("t.npy", targets)
    check_usage(capsys, ["q.npy", "t.npy"], "q.npy (6, 4)", f"t.npy {targets.shape}", hint)


def test_shapes_that_do_not_broadcast_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("t.npy", TARGETS[:5])
    check_usage(capsys, ["q.npy", "t.npy", "--broadcast"], "q.npy (6, 4)", "t.npy (5, 4)", "do not broadcast")


@pytest.mark.parametrize("option", ["--axis", "--log-softmax"])
@pytest.mark.parametrize("axis", ["2", "-3"])
def test_an_axis_out_of_range_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, axis: str
) -> None:
    check_usage(capsys, ["q.npy", "p.npy", option, axis], "q.npy: ", axis, "(6, 4)")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.array([0, 1, 2, 3, 4, 0]), "1 of 6 labels outside 0 to 3, first 4 at index (4,)"),
        (np.array([0, -1, 2, 3, 0, 0]), "1 of 6 labels outside 0 to 3, first -1 at index (1,)"),
        (np.array([0, 1, 2, 3, 2**64 - 1, 0], "u8"), "first 18446744073709551615 at index (4,)"),
        (np.zeros(6), "float64, expected integer labels"),
        (np.zeros(6, "?"), "bool, expected integer labels"),
        (np.zeros(5, "i8"), "(5,): expected (6,)"),
        (np.zeros(SHAPE, "i8"), "(6, 4): expected (6,)"),
    ],
    ids=["too large", "negative", "unsigned", "floats", "bools", "too few", "too many dimensions"],
)
def test_labels_that_are_no_class_indices_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], labels: Array, reason: str
) -> None:
    np.save("labels.npy", labels)
    check_usage(capsys, ["q.npy", "labels.npy", "--targets-are", "labels"], "labels.npy", reason)


@pytest.mark.parametrize("value", [1.5, -0.25, np.nan, np.inf])
def test_a_bce_prediction_that_is_no_probability_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    spoilt = PREDICTIONS.copy()
    spoilt[2, 1] = value
    np.save("spoilt.npy", spoilt)
    check_usage(
        capsys,
        ["spoilt.npy", "p.npy", "--loss", "bce"],
        "spoilt.npy: 1 of 24 probabilities outside [0, 1], first",
        str(value),
        "at index (2, 1)",
        "--predictions-are logits",
    )


def test_a_bce_target_that_is_no_probability_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoilt = TARGETS.copy()
    spoilt[5, 3] = 2.0
    np.save("spoilt.npy", spoilt)
    arguments = ["q-probs.npy", "spoilt.npy", "--loss", "bce"]
    check_usage(capsys, arguments, "spoilt.npy: 1 of 24 targets outside [0, 1], first 2.0 at index (5, 3)")


@pytest.mark.parametrize("option", ["--weight", "--pos-weight"])
@pytest.mark.parametrize("shape", [(3,), (6,), (2, 6, 4), (6, 4, 1)], ids=str)
def test_weights_that_do_not_broadcast_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, shape: tuple[int, ...]
) -> None:
    np.save("w.npy", np.ones(shape))
    arguments = ["q.npy", "p.npy", "--loss", "bce", "--predictions-are", "logits", option, "w.npy"]
    check_usage(capsys, arguments, f"w.npy {shape}: expected a shape that broadcasts to (6, 4)")


# Files that change while they are read


@pytest.mark.parametrize("ending", ["npy", "h5"])
def test_a_file_truncated_between_two_blocks_has_changed(folder: Path, ending: str) -> None:
    path = f"large.{ending}"
    large = probabilities(8, (1000, 100))
    if ending == "npy":
        np.save(path, large)
    else:
        with h5py.File(path, "w") as file:
            file["x"] = large
    source = open_source(path)
    source.read((slice(0, 10), slice(0, 100)), Buffer())
    os.truncate(path, 100_000)
    with pytest.raises(InputChanged, match=rf"{path}: ended at byte .* truncated while it was read"):
        source.read((slice(900, 910), slice(0, 100)), Buffer())
    source.close()


@pytest.fixture
def large(folder: Path) -> tuple[str, str]:
    """A pair of many blocks."""
    np.save("large-q.npy", np.log(probabilities(9, (16_384, 64))).astype("f4"))
    np.save("large-p.npy", probabilities(10, (16_384, 64)).astype("f4"))
    return "large-q.npy", "large-p.npy"


@pytest.mark.parametrize("place", [0, 1], ids=["predictions", "targets"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_truncated_in_the_middle_of_a_computation_gives_no_number(
    large: tuple[str, str], place: int, workers: int
) -> None:
    calls = 0

    def truncate(done: int) -> None:
        nonlocal calls
        calls += 1
        os.truncate(large[place], 300_000)

    with pytest.raises(
        InputChanged, match=rf"{large[place]}: (ended at byte .* truncated|changed) while it was read"
    ):
        kldiv_cli.evaluate(*large, workers=workers, progress=truncate)
    assert calls >= 1


@pytest.mark.parametrize("place", [0, 1], ids=["predictions", "targets"])
def test_a_file_modified_in_the_middle_of_a_computation_gives_no_number_and_no_map(
    folder: Path, large: tuple[str, str], place: int
) -> None:
    before = listing(folder)
    calls = 0

    def modify(done: int) -> None:
        nonlocal calls
        calls += 1
        os.utime(large[place], ns=(calls, calls))

    with pytest.raises(InputChanged, match=rf"{large[place]}: changed while it was read"):
        kldiv_cli.evaluate(*large, workers=1, progress=modify, output="map.npy")
    assert calls > 1
    assert listing(folder) == before


# Outputs


def check_output_failure(folder: Path, output: str, options: list[str], *fragments: str) -> None:
    check_failure(folder, ["q.npy", "p.npy", "--output", output, *options], *fragments)


@pytest.mark.parametrize("output", ["map.npy", "map.h5::/x"])
def test_an_output_that_exists_is_kept_without_force(folder: Path, output: str) -> None:
    old = Path(output.partition("::")[0])
    old.write_bytes(b"the old output")
    check_output_failure(folder, output, [], old.name, "exists", "--force")
    assert old.read_bytes() == b"the old output"


def itself() -> str:
    return "p.npy"


def hard_link() -> str:
    os.link("p.npy", "map.npy")
    return "map.npy"


def symbolic_link() -> str:
    os.symlink("p.npy", "map.npy")
    return "map.npy"


def way_round() -> str:
    Path("inner").mkdir()
    return "inner/../p.npy"


@POSIX
@pytest.mark.parametrize("disguise", [itself, hard_link, symbolic_link, way_round], ids=lambda f: f.__name__)
def test_an_output_that_is_the_input_in_disguise_is_refused_and_the_input_survives(
    folder: Path, disguise: Callable[[], str]
) -> None:
    output = disguise()
    contents = Path("p.npy").read_bytes()
    check_output_failure(folder, output, ["--force"], output, "is the input p.npy")
    assert Path("p.npy").read_bytes() == contents


@POSIX
def test_an_output_that_is_the_file_behind_a_linked_input_is_refused(folder: Path) -> None:
    os.symlink("p.npy", "link.npy")
    contents = Path("p.npy").read_bytes()
    check_failure(
        folder, ["q.npy", "link.npy", "--output", "p.npy", "--force"], "p.npy: is the input link.npy"
    )
    assert Path("p.npy").read_bytes() == contents


def test_an_hdf5_file_that_is_read_is_not_written_to(folder: Path) -> None:
    with h5py.File("a.h5", "w") as file:
        file["p"] = TARGETS
    contents = Path("a.h5").read_bytes()
    check_failure(
        folder, ["q.npy", "a.h5::p", "--output", "a.h5::map", "--force"], "a.h5::map: is the input a.h5"
    )
    assert Path("a.h5").read_bytes() == contents


def test_an_output_over_the_weights_is_refused(folder: Path) -> None:
    np.save("w.npy", np.ones(4))
    options = ["--loss", "bce", "--weight", "w.npy", "--output", "w.npy", "--force"]
    check_failure(folder, ["q-probs.npy", "p.npy", *options], "w.npy: is the input w.npy")


def test_an_output_in_a_missing_directory_is_named(folder: Path) -> None:
    check_output_failure(folder, "missing/map.npy", [], "missing/map.npy: no directory", "create it first")


@pytest.mark.parametrize("output", ["map.txt", "map", "map.npz"])
def test_an_output_of_no_known_ending_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    before = listing(folder)
    check_usage(
        capsys, ["q.npy", "p.npy", "--output", output], f"output {output}: expected a name like map.npy"
    )
    assert listing(folder) == before


Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Mount a small file system in memory with the options given; needs Linux and its superuser."""
    place = tmp_path / "mounted"
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        if sys.platform != "linux" or shutil.which("mount") is None:
            pytest.skip("there is no mount here")
        place.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        completed = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if completed.returncode:
            pytest.skip(f"can't mount: {' '.join(completed.stderr.split())}")
        if "remount" not in options:
            mounted.append(place)
        return place

    yield mount
    for where in mounted:
        subprocess.run(["umount", str(where)], check=True, timeout=30)


@pytest.mark.parametrize("name", ["map.npy", "map.h5"])
def test_an_output_on_a_read_only_file_system_is_named(folder: Path, mount: Mount, name: str) -> None:
    place = mount("size=64k")
    (place / name).write_bytes(b"the old output")
    mount("remount,ro")
    check_output_failure(folder, str(place / name), ["--force"], str(place / name), "Read-only file system")
    assert (place / name).read_bytes() == b"the old output"


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the superuser may write to any directory"
)
def test_an_output_in_a_directory_without_permission_is_named(folder: Path) -> None:
    Path("locked").mkdir(0o500)
    check_output_failure(folder, "locked/map.npy", [], "locked/map.npy", "Permission denied")


@pytest.mark.parametrize("used", [0, 60_000, None], ids=["empty", "nearly full", "full"])
@pytest.mark.parametrize("name", ["map.npy", "map.h5"])
def test_a_full_disk_keeps_the_old_output_and_leaves_nothing_behind(
    folder: Path, large: tuple[str, str], mount: Mount, name: str, used: int | None
) -> None:
    place = mount("size=64k")
    old = probabilities(11, (16, 8)).tobytes()
    (place / name).write_bytes(old)
    fill_up(place / "ballast", used)
    before = listing(folder)
    completed = run(*large, "--output", str(place / name), "--force")
    check_line(completed.stderr, str(place / name), "No space left on device")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert (place / name).read_bytes() == old
    assert listing(folder) == before


def fill_up(path: Path, size: int | None) -> None:
    """Write that many bytes, or as many as there is room for."""
    if size is not None:
        path.write_bytes(bytes(size - 4096 * (size > 0)))
        return
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return


@pytest.mark.parametrize("name", ["map.npy", "map.h5"])
def test_an_output_beyond_the_limit_of_file_sizes_keeps_the_old_one_and_leaves_nothing_behind(
    folder: Path, large: tuple[str, str], name: str
) -> None:
    pytest.importorskip("resource")
    Path(name).write_bytes(b"the old output")
    before = listing(folder)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)); "
        "from kldiv_cli.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", limited, "compute", *large, "--output", name, "--force"]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=30)
    check_line(completed.stderr, name, "File too large")
    assert (completed.returncode, completed.stdout) == (2, "")
    assert Path(name).read_bytes() == b"the old output"
    assert listing(folder) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_results_that_can_not_be_written_to_stdout_are_one_line(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        completed = subprocess.run(
            [*COMMAND, "q.npy", "p.npy"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30
        )
    check_line(completed.stderr, "No space left on device")
    assert completed.returncode == 2


def test_a_dataset_name_that_hdf5_refuses_is_one_line(folder: Path) -> None:
    check_output_failure(folder, "map.h5::/.", [], "map.h5")


def test_a_bad_input_leaves_no_output(folder: Path) -> None:
    spoilt = PREDICTIONS.copy()
    spoilt[2, 1] = 1.5
    np.save("spoilt.npy", spoilt)
    Path("map.npy").write_bytes(b"the old output")
    options = ["--loss", "bce", "--output", "map.npy", "--force"]
    check_failure(folder, ["spoilt.npy", "p.npy", *options], "spoilt.npy: 1 of 24 probabilities")
    assert Path("map.npy").read_bytes() == b"the old output"


# Options


PAIR = ["q.npy", "p.npy"]
BCE = ["q-probs.npy", "p.npy", "--loss", "bce"]

USAGE: dict[str, tuple[list[str], list[str]]] = {
    "axis against log-softmax": ([*PAIR, "--axis", "0", "--log-softmax", "1"], ["axis 0", "log-softmax"]),
    "log-target against labels": (
        [*PAIR, "--log-target", "--targets-are", "labels"],
        ["--targets-are labels", "--log-target"],
    ),
    "log-softmax of probabilities": (
        [*PAIR, "--log-softmax", "1", "--predictions-are", "probs"],
        ["--predictions-are probs", "--log-softmax"],
    ),
    "weight with kl": ([*PAIR, "--weight", "p.npy"], ["weight: kl has none", "--loss bce"]),
    "pos-weight with kl": ([*PAIR, "--pos-weight", "p.npy"], ["--pos-weight", "--loss bce"]),
    "pos-weight without logits": (
        [*BCE, "--pos-weight", "p.npy"],
        ["--pos-weight", "--predictions-are logits"],
    ),
    "two losses without a space": ([*BCE, "--loss", "kl"], ["--predictions-are"]),
    "two losses of logits": (
        [*BCE, "--loss", "kl", "--predictions-are", "logits"],
        ["--predictions-are logits", "--log-softmax"],
    ),
    "two losses with output": (
        [*BCE, "--loss", "kl", "--predictions-are", "probs", "--output", "map.npy"],
        ["a per-element map is of one loss"],
    ),
    "two losses with reduction none": (
        [*BCE, "--loss", "kl", "--predictions-are", "probs", "--reduction", "none"],
        ["a per-element map is of one loss"],
    ),
    "map-slice without reduction none": ([*PAIR, "--map-slice", "0,:"], ["--map-slice", "--reduction none"]),
    "map-slice with another reduction": (
        [*PAIR, "--map-slice", "0,:", "--reduction", "sum"],
        ["--map-slice", "--reduction none"],
    ),
    "full without reduction none": ([*PAIR, "--full"], ["full", "--reduction none"]),
    "map-slice that is none": (
        [*PAIR, "--reduction", "none", "--map-slice", "a"],
        ["--map-slice: selection item 'a'"],
    ),
    "map-slice out of range": (
        [*PAIR, "--reduction", "none", "--map-slice", "9"],
        ["--map-slice: index 9 is out"],
    ),
    "batchmean with bce": ([*BCE, "--reduction", "batchmean"], ["reduction batchmean", "mean"]),
    "size-average against batchmean": (
        [*PAIR, "--size-average", "--reduction", "batchmean"],
        ["--size-average", "--reduction batchmean"],
    ),
    "reduce against batchmean": ([*PAIR, "--reduce", "--reduction", "batchmean"], ["--reduction batchmean"]),
    "temperature without logits": ([*PAIR, "--temperature", "2"], ["temperature", "logits"]),
    "temperature 0": ([*PAIR, "--log-softmax", "1", "--temperature", "0"], ["temperature 0", "above 0"]),
    "temperature below 0": (
        [*PAIR, "--log-softmax", "1", "--temperature", "-2"],
        ["temperature -2", "above 0"],
    ),
    "temperature nan": ([*PAIR, "--log-softmax", "1", "--temperature", "nan"], ["temperature nan"]),
    "temperature inf": ([*PAIR, "--log-softmax", "1", "--temperature", "inf"], ["temperature inf"]),
    "temperature no number": (
        [*PAIR, "--log-softmax", "1", "--temperature", "hot"],
        ["--temperature"],
    ),
    "memory too small": ([*PAIR, "--memory", "1k"], ["memory 1024 bytes: expected at least"]),
    "memory 0": ([*PAIR, "--memory", "0"], ["memory 0 bytes: expected at least"]),
    "memory no size": ([*PAIR, "--memory", "abc"], ["--memory", "abc", "expected a size like 64MiB"]),
    "memory negative": ([*PAIR, "--memory=-1"], ["--memory", "expected a size like 64MiB"]),
    "memory beyond floats": ([*PAIR, "--memory", "9" * 400], ["--memory"]),
    "workers 0": ([*PAIR, "--workers", "0"], ["--workers"]),
    "axis no number": ([*PAIR, "--axis", "last"], ["--axis"]),
    "precision 0": ([*PAIR, "--precision", "0"], ["--precision"]),
    "output-dtype without output": ([*PAIR, "--output-dtype", "float32"], ["--output-dtype", "--output"]),
    "output-dtype unknown": (
        [*PAIR, "--output", "m.npy", "--output-dtype", "int8"],
        ["--output-dtype", "int8"],
    ),
    "json against format": ([*PAIR, "--json", "--format", "csv"], ["json", "--format csv"]),
    "loss unknown": ([*PAIR, "--loss", "mse"], ["--loss", "mse"]),
    "reduction unknown": ([*PAIR, "--reduction", "max"], ["--reduction", "max"]),
    "format unknown": ([*PAIR, "--format", "xml"], ["--format", "xml"]),
    "option unknown": ([*PAIR, "--colour"], ["--colour"]),
    "option without value": ([*PAIR, "--axis"], ["--axis"]),
    "argument missing": (["q.npy"], ["TARGETS"]),
    "argument too many": ([*PAIR, "r.npy"], ["r.npy"]),
    "address without a file": (["::/x", "p.npy"], ["::/x: expected FILE::DATASET"]),
    "address with nothing behind it": (["q.npy::", "p.npy"], ["q.npy::: expected FILE::DATASET"]),
    "dataset of an npy file": (["q.npy::x", "p.npy"], ["q.npy::x: an .npy file is one array"]),
    "selection of step 2": (["q.npy::[::2]", "p.npy"], ["q.npy::[::2]: selection item '::2'"]),
    "selection out of range": (["q.npy::[9]", "p.npy"], ["q.npy::[9]: index 9 is out of range"]),
    "selection of two numbers": (["q.npy::[0-3]", "p.npy"], ["q.npy::[0-3]: selection item '0-3'"]),
}


@pytest.mark.parametrize(("arguments", "fragments"), USAGE.values(), ids=USAGE)
def test_options_that_are_wrong_or_contradict_each_other_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], fragments: list[str]
) -> None:
    before = listing(folder)
    check_usage(capsys, arguments, *fragments)
    assert listing(folder) == before


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calculate"]) == 2
    check_line(capsys.readouterr().err, "calculate")


def test_a_usage_error_of_the_real_process_is_one_line(folder: Path) -> None:
    check_failure(folder, ["q.npy", "p.npy", "--temperature", "2"], "temperature")


def test_debug_shows_the_traceback_above_the_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compute", "missing.npy", "p.npy", "--debug"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "kldiv: error: missing.npy: no such file"
