"""The verb ``sweep`` on a tiny rendered world: Ray and one process give the same bytes, and so does going on."""

import json
from pathlib import Path

import pytest

from cluster import cli
from cluster.verbs.sweep import CHUNKS, REPORT, TABLE, Chunks
from search.sweep import Sweeper, read_sweep

SETTINGS = (
    *("objectives=[mmd_linear,mmd_rbf]", "images=[20,40,4000]", "optimizers=[numpy_swarm]", "seeds=[0,1,2]"),
    *("attributes=[viewpoint,weather]", "evaluations=25", "chunk=4"),
)
NUM_SEARCHES, NUM_CHUNKS = 18, 5


@pytest.fixture(scope="module")
def world(foggy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Catalog and measurements of about 6 images in each of 4 x 7 cells, and an undisturbed sweep by one process."""
    folder = tmp_path_factory.mktemp("sweep")
    for name in ("source.parquet", "measurements"):
        (folder / name).symlink_to(foggy / name)
    assert sweep(folder, "alone", "--serial") == 0
    return folder


def sweep(world: Path, name: str, *options: str, settings: tuple[str, ...] = SETTINGS) -> int:
    places = ("--measurements", str(world / "measurements"), "--output", str(world / name))
    return cli.run(["sweep", str(world / "source.parquet"), *places, *options, "--set", *settings])


def table(world: Path, name: str) -> bytes:
    return (world / name / TABLE).read_bytes()


@pytest.mark.usefixtures("ray")
def test_ray_gives_the_bytes_of_one_process_and_both_leave_nothing_else(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(world, "ray", "--json") == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["num_searches"], said["num_failed"]) == (NUM_SEARCHES, 6)
    assert table(world, "ray") == table(world, "alone")
    for name in ("ray", "alone"):
        left = {path.name for path in (world / name).iterdir() if not path.name.startswith(".")}
        assert left == {"plan.json", "done.json", TABLE, REPORT}
    frame = read_sweep(world / "ray" / TABLE)
    assert frame["error"].notna().tolist() == (frame["images"] == 4000).tolist()


def test_an_interrupted_sweep_goes_on_and_loses_only_the_chunk_in_flight(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    searched: list[int] = []
    row = Sweeper.row

    def interrupted(self: Sweeper, number: int, point: object) -> object:
        if len(searched) == 10:
            raise KeyboardInterrupt
        searched.append(number)
        return row(self, number, point)  # type: ignore[arg-type]

    monkeypatch.setattr(Sweeper, "row", interrupted)
    assert sweep(world, "interrupted", "--serial") == cli.EXIT_INTERRUPTED
    chunks = world / "interrupted" / CHUNKS
    assert sorted(path.name for path in chunks.glob("*.json")) == ["00000.json", "00001.json"]
    monkeypatch.undo()

    done: list[int] = []
    do = Chunks.do
    monkeypatch.setattr(Chunks, "do", lambda self, number, *rest: (done.append(number), do(self, number, *rest))[1])
    assert sweep(world, "interrupted", "--serial") == 0
    assert done == [2, 3, 4]
    assert "8 searches done before, goes on" in capsys.readouterr().err
    assert table(world, "interrupted") == table(world, "alone")
    assert sweep(world, "interrupted", "--serial") == 0
    assert done == [2, 3, 4]


def test_other_settings_are_refused_with_what_differs_until_fresh(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(world, "other", "--serial") == 0
    before = table(world, "other")
    changed = tuple(each.replace("images=[20,40,4000]", "images=[20,60]") for each in SETTINGS)
    assert sweep(world, "other", "--serial", settings=changed) == 2
    assert "images: [20, 40, 4000] -> [20, 60]" in capsys.readouterr().err
    assert table(world, "other") == before
    assert sweep(world, "other", "--serial", "--fresh", settings=changed) == 0
    assert (world / "other" / "before-1" / TABLE).read_bytes() == before
    assert sorted(set(read_sweep(world / "other" / TABLE)["images"])) == [20, 60]


def test_a_damaged_chunk_is_named_and_never_becomes_a_result(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = Chunks.read

    def damaged(self: Chunks) -> object:
        path = self.folder / "00003.parquet"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return read(self)

    monkeypatch.setattr(Chunks, "read", damaged)
    assert sweep(world, "damaged", "--serial") == 4
    assert "00003.parquet is missing, damaged" in capsys.readouterr().err
    assert not (world / "damaged" / TABLE).exists()
    monkeypatch.undo()
    (world / "damaged" / CHUNKS / "00003.json").unlink()
    assert sweep(world, "damaged", "--serial") == 0
    assert table(world, "damaged") == table(world, "alone")


def test_unknown_target_and_axis_are_refused_by_name(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(world, "unknown", "--serial", "--targets", "duke") == 2
    assert "target 'duke' was not measured, only foggy" in capsys.readouterr().err
    assert sweep(world, "unknown", "--serial", settings=(*SETTINGS, "optimiser=[swarm]")) == 2
    assert "optimizers" in capsys.readouterr().err
    assert not (world / "unknown").exists()
