"""A fit by tiles: as good at seams as inside, the same bytes however it ran, and after any kill."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from napari_gaussfit.errors import FitError, OutputError, SettingsError
from napari_gaussfit.fitting import tile_runs
from napari_gaussfit.fitting.fit_tiles import TileProgress, TileReport, fit_tiles
from napari_gaussfit.fitting.placed import Placed
from napari_gaussfit.fitting.result import load
from napari_gaussfit.fitting.tile_levels import Levels
from napari_gaussfit.fitting.tile_runs import SampledStack
from napari_gaussfit.fitting.tile_store import LOG_NAME, Outcome
from napari_gaussfit.fitting.tile_tasks import TileTask, TileWork, _numbers
from napari_gaussfit.settings import FitSettings
from napari_gaussfit.stacks.lazy import LazyStack
from napari_gaussfit.stacks.stack import Stack
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from collections.abc import Iterator


TILE = (24, 32, 32)
SETTINGS = FitSettings(iterations=60, device="cpu")


def stack_with_dark_end() -> Stack:
    """Return a neurite that crosses seams, and as much with nothing beside it."""
    neurite = phantoms.neurite(shape=(24, 64, 64), seed=2).stack
    dark = np.random.default_rng(0).poisson(100, (24, 64, 128)).astype(np.uint16)
    voxels = np.concatenate([neurite.voxels, dark], axis=2)
    return Stack.from_array(voxels, spacing=neurite.spacing, name="neurite")


@pytest.fixture(scope="module")
def stack() -> Stack:
    return stack_with_dark_end()


@pytest.fixture(scope="module")
def fitted(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TileReport]:
    out = tmp_path_factory.mktemp("tiles") / "out"
    return out, fit_tiles(stack, out, SETTINGS, tile=TILE)


def contents(folder: Path) -> dict[str, str]:
    """Return a checksum of each file of a result, but for the log of times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != LOG_NAME
    }


def test_the_field_is_as_good_as_that_of_a_fit_in_one_piece(
    stack: Stack, fitted: tuple[Path, TileReport]
) -> None:
    from napari_gaussfit import fit

    out, report = fitted
    background = json.loads((out / "index.json").read_text())["report"]["background"]
    whole = fit(stack, replace(SETTINGS, background=background))

    assert report.voxel_psnr >= whole.report.voxel_psnr - 0.1
    error = load(out).voxelise() - stack.voxels
    psnr = 10 * math.log10(np.ptp(stack.voxels.astype(float)) ** 2 / np.square(error).mean())
    assert report.voxel_psnr == pytest.approx(psnr, abs=0.01)


def test_voxels_beside_seams_are_as_good_as_those_where_another_cut_has_none(
    stack: Stack, fitted: tuple[Path, TileReport], tmp_path: Path
) -> None:
    """The same voxels, which lie in the middle of tiles there."""
    other = tmp_path / "other"
    fit_tiles(stack, other, SETTINGS, tile=(24, 64, 48))
    beside = np.zeros(stack.shape, np.bool_)
    for seam in (16, 32):
        beside[:, seam - 6 : seam + 6] = seam == 32
    beside[:, :, 32 - 6 : 32 + 6] = True
    beside[:, :, 48 - 12 :] = False  # where the other cut has its seam, and the dark

    def psnr(folder: Path) -> float:
        error = load(folder).voxelise() - stack.voxels
        return -10 * math.log10(np.square(error[beside]).mean())

    assert psnr(fitted[0]) >= psnr(other) - 0.1


def test_tiles_of_background_are_not_fitted(fitted: tuple[Path, TileReport]) -> None:
    out, report = fitted
    tiles = pd.read_parquet(out / "tiles.parquet")

    assert (report.tiles, report.background_tiles) == (12, 6)
    dark = tiles[tiles["status"] == "background"]
    assert (dark["first_x"] >= 96).all()
    assert (dark["gaussians"] == 0).all()
    assert report.failed == ()


def test_parts_hold_each_gaussian_once_in_the_tile_that_holds_its_centre(
    fitted: tuple[Path, TileReport],
) -> None:
    out, report = fitted
    table, tiles = (
        pd.read_parquet(out / "gaussians.parquet"),
        pd.read_parquet(out / "tiles.parquet"),
    )

    assert len(table) == report.gaussians == tiles["gaussians"].sum()
    assert len(table.drop_duplicates(["z", "y", "x"])) == len(table)
    for row in tiles[tiles["gaussians"] > 0].to_dict("records"):
        part = pd.read_parquet(out / "gaussians.parquet" / row["part"])
        for n, axis in enumerate("zyx"):
            assert (
                part[f"axis-{n}"]
                .between(row[f"first_{axis}"] - 0.5, row[f"end_{axis}"] - 0.5)
                .all()
            )


def test_the_table_has_the_columns_of_the_csv(
    fitted: tuple[Path, TileReport], tmp_path: Path
) -> None:
    load(fitted[0]).export(tmp_path / "all.csv")

    columns = pd.read_csv(tmp_path / "all.csv").columns
    assert [*pd.read_parquet(fitted[0] / "gaussians.parquet").columns] == [*columns]


def test_a_region_is_loaded_with_all_that_reaches_into_it(
    stack: Stack, fitted: tuple[Path, TileReport]
) -> None:
    whole = load(fitted[0]).voxelise()
    part = load(fitted[0], region=((2, 20, 30), (20, 50, 60)))

    assert part.stack.shape == (18, 30, 30)
    assert part.stack.origin == pytest.approx(np.multiply((2, 20, 30), stack.spacing))
    assert 0 < len(part.field) < fitted[1].gaussians
    error = np.abs(part.voxelise() - whole[2:20, 20:50, 30:60]).max()
    assert error < 1e-4 * np.ptp(whole)


@pytest.mark.parametrize("region", [((0, 0, 0), (25, 64, 64)), ((5, 0, 0), (6, 9, 9))])
def test_a_region_outside_of_the_stack_is_refused(
    fitted: tuple[Path, TileReport], region: Any
) -> None:
    with pytest.raises(SettingsError, match="in a stack of 24 x 64 x 192"):
        load(fitted[0], region=region)


class Backwards:
    """Does the last of the tasks that it was given, and holds as many as it can."""

    slots = 99

    def __init__(self) -> None:
        self.waiting: list[tuple[TileWork, TileTask]] = []

    def submit(self, work: TileWork, task: TileTask, together: int) -> None:
        assert together >= len(self.waiting) + 1
        self.waiting.append((work, task))

    def ended(self) -> Iterator[tuple[TileTask, Outcome | BaseException]]:
        work, task = self.waiting.pop()
        yield task, work.do(task)


def test_the_order_of_tiles_changes_no_byte(
    stack: Stack,
    fitted: tuple[Path, TileReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tile_runs, "SerialPool", Backwards)

    fit_tiles(stack, tmp_path / "out", SETTINGS, tile=TILE)

    assert contents(tmp_path / "out") == contents(fitted[0])


@pytest.mark.parametrize("count", [9, 90])
def test_an_exact_number_is_that_of_all_tiles_in_any_order(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    asked = replace(SETTINGS, gaussians=count, exactly=True, iterations=40)

    report = fit_tiles(stack, tmp_path / "out", asked, tile=TILE)
    monkeypatch.setattr(tile_runs, "SerialPool", Backwards)
    fit_tiles(stack, tmp_path / "other", asked, tile=TILE)

    assert report.gaussians == count == len(load(tmp_path / "out").field)
    assert report.failed == ()
    assert contents(tmp_path / "out") == contents(tmp_path / "other")


def test_no_worker_waits_for_the_last_tile_of_a_stage(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tile that is slow, only what needs it waits: the far end of a row is mended before."""
    ended: list[tuple[str, tuple[int, int, int]]] = []

    class FirstIsSlow(Backwards):
        def ended(self) -> Iterator[tuple[TileTask, Outcome | BaseException]]:
            slow = [one for one in self.waiting if one[1].named == ("fit", (0, 0, 0))]
            work, task = next((one for one in self.waiting if one not in slow), (None, None))
            if work is None or task is None:
                [(work, task)] = slow
            self.waiting = [one for one in self.waiting if one[1] is not task]
            ended.append((str(task.stage), task.tile.place))
            yield task, work.do(task)

    monkeypatch.setattr(tile_runs, "SerialPool", FirstIsSlow)
    row = Stack.from_array(np.tile(stack.voxels[:, :32, :64], (1, 1, 4)), spacing=stack.spacing)
    fit_tiles(row, tmp_path / "out", replace(SETTINGS, iterations=10), tile=TILE)

    slow = ended.index(("fit", (0, 0, 0)))
    assert ended.index(("seams", (0, 0, 7))) < slow
    assert ended.index(("write", (0, 0, 7))) < slow
    assert ended.index(("fit", (0, 0, 1))) > slow


class Killed(BaseException):
    """The end of the process."""


@pytest.mark.parametrize("after", [0, 5, 13, 26])
def test_a_run_that_was_killed_ends_in_the_same_bytes(
    stack: Stack,
    fitted: tuple[Path, TileReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    left = [after]
    do = TileWork.do

    def killed(work: TileWork, task: TileTask) -> Outcome:
        if not left[0]:
            (work.out / "gaussians.parquet" / ".half-0a1b.parquet").write_bytes(b"half")
            raise Killed
        left[0] -= 1
        return do(work, task)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(TileWork, "do", killed)
        with pytest.raises(Killed):
            fit_tiles(stack, out, SETTINGS, tile=TILE)
    if (out / "work" / LOG_NAME).exists():
        with (out / "work" / LOG_NAME).open("a") as log:
            log.write('{"key": "cut sho')

    done: list[TileProgress] = []
    fit_tiles(stack, out, SETTINGS, tile=TILE, resume=True, progress=done.append)

    assert contents(out) == contents(fitted[0])
    assert fit_tiles(stack, out, SETTINGS, tile=TILE, resume=True) == replace(fitted[1], out=out)


def test_a_resumed_run_does_nothing_twice(
    stack: Stack, fitted: tuple[Path, TileReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    do = TileWork.do

    def counted(work: TileWork, task: TileTask) -> Outcome:
        if len(asked) == 9:
            asked.append("killed")
            raise Killed
        outcome = do(work, task)
        asked.append(task.key)
        return outcome

    monkeypatch.setattr(TileWork, "do", counted)
    with pytest.raises(Killed):
        fit_tiles(stack, tmp_path / "out", SETTINGS, tile=TILE)
    fit_tiles(stack, tmp_path / "out", SETTINGS, tile=TILE, resume=True)

    keys = [key for key in asked if key != "killed"]
    assert len(keys) == len(set(keys))
    assert contents(tmp_path / "out") == contents(fitted[0])


def test_a_tile_that_fails_is_tried_again_then_reported_and_the_rest_goes_on(
    stack: Stack, fitted: tuple[Path, TileReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[TileTask] = []
    do = TileWork.do

    def failing(work: TileWork, task: TileTask) -> Outcome:
        if task.stage == "fit" and task.tile.place == (0, 0, 1):
            tries.append(task)
            raise FitError("no such luck")
        return do(work, task)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(TileWork, "do", failing)
        report = fit_tiles(stack, out, SETTINGS, tile=TILE)

    assert len(tries) == 3
    where = "voxels z 0 to 23, y 0 to 31, x 32 to 63"
    assert report.failed == (("fitting 0000-0000-0001", f"{where}: no such luck"),)
    assert report.gaussians > 0
    assert load(out).notes == ("1 tiles failed and hold nothing",)
    with pytest.raises(OutputError, match="--resume"):
        fit_tiles(stack, out, SETTINGS, tile=TILE)

    # Tried again, it is there, and all that had gone on without it is made anew.
    fit_tiles(stack, out, SETTINGS, tile=TILE, resume=True)
    assert contents(out) == contents(fitted[0])


def test_a_folder_of_other_settings_or_another_stack_is_not_gone_on_with(
    stack: Stack, fitted: tuple[Path, TileReport]
) -> None:
    other = Stack.from_array(stack.voxels + 1, spacing=stack.spacing, name=stack.name)

    with pytest.raises(SettingsError, match="another settings"):
        fit_tiles(stack, fitted[0], replace(SETTINGS, seed=1), tile=TILE, resume=True)
    with pytest.raises(SettingsError, match="another sample and levels"):
        fit_tiles(other, fitted[0], SETTINGS, tile=TILE, resume=True)
    with pytest.raises(SettingsError, match="another tiles"):
        fit_tiles(stack, fitted[0], SETTINGS, tile=(24, 64, 64), resume=True)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"objective": "mip"}, "projections"),
        ({"max_seconds": 3.0}, "speed"),
    ],
)
def test_what_cannot_be_had_by_tiles_is_refused(
    stack: Stack, tmp_path: Path, given: dict[str, Any], why: str
) -> None:
    with pytest.raises(SettingsError, match=rf"cannot be had by tiles, since .*{why}.*--no-tiles"):
        fit_tiles(stack, tmp_path / "out", FitSettings(**given))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tile", [(8, 8), (1, 32, 32), (24, 20, 32), (24.5, 32, 32)])
def test_sizes_that_are_none_of_a_tile_are_refused(stack: Stack, tmp_path: Path, tile: Any) -> None:
    with pytest.raises(SettingsError, match="tile"):
        fit_tiles(stack, tmp_path / "out", SETTINGS, tile=tile)


def test_levels_tell_faint_light_from_noise() -> None:
    rng = np.random.default_rng(1)
    dark = rng.normal(100, 10, (32, 32, 32)).astype(np.float32)
    levels = SampledStack.of(LazyStack.from_array(dark)).levels
    z, y, x = np.indices(dark.shape) - 15.7
    spot = 70 * np.exp(-(z**2 + y**2 + x**2) / (2 * 1.5**2))
    haze = np.full(dark.shape, 15.0)
    other = rng.normal(100, 10, dark.shape)

    assert levels.background == pytest.approx(100, abs=2)
    assert not levels.hold_light(other)
    assert levels.hold_light(other + spot)
    assert levels.hold_light(other + haze)


@pytest.mark.parametrize("photons", [0.3, 1.0, 5.0, 100.0])
def test_noise_of_few_photons_is_no_light(photons: float) -> None:
    voxels = np.random.default_rng(2).poisson(photons, (128, 128, 128)).astype(np.uint16)

    levels = SampledStack.of(LazyStack.from_array(voxels[:64, :64, :64])).levels

    assert not levels.hold_light(voxels)


def test_places_far_from_the_first_voxel_keep_their_digits() -> None:
    stack = LazyStack.from_array(np.zeros((4, 4, 4)), spacing=(0.1, 0.1, 0.1))
    far, one = (0, 0, 1_000_000), np.array([[0.15, 0.15, 100_000.1234567]])
    placed = Placed(one, np.zeros((1, 6), np.float32), np.ones((1, 1), np.float32))

    [local] = placed.fields(far, stack.facts)

    assert local.numpy().means[0, 2] == pytest.approx(0.1234567, abs=1e-6)
    assert Placed.of([local], far, stack.spacing).means == pytest.approx(one, abs=1e-6)


def test_a_look_for_light_and_what_is_noted_of_background_take_5_ms_a_tile() -> None:
    """Of the size that is taken where none is asked for; least of several, in this thread."""
    voxels = np.random.default_rng(0).poisson(100, (152, 152, 152)).astype(np.uint16)
    levels = SampledStack.of(LazyStack.from_array(voxels)).levels
    core = voxels[12:140, 12:140, 12:140]

    seconds = []
    for _ in range(5):
        began = time.process_time()
        assert not levels.hold_light(voxels)
        _numbers(core, core, levels.background)
        seconds.append(time.process_time() - began)

    assert min(seconds) <= 0.005, f"{1e3 * min(seconds):.1f} ms"


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 7, 9), (1, 4, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
def test_no_voxel_is_outside_of_all_blocks(shape: tuple[int, int, int], dtype: Any) -> None:
    levels = Levels(10.0, (12.0, 10.2), "")
    for place in np.ndindex(shape):
        voxels = np.full(shape, 10, dtype)
        assert not levels.hold_light(voxels)
        voxels[place] = 60
        assert levels.hold_light(voxels), place
