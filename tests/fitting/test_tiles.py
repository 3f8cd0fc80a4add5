"""Tiles: they cover a stack once, see their neighbours, and never two that touch run at once."""

from __future__ import annotations

import numpy as np
import pytest
from tile_cores import met

from napari_gaussfit.errors import SettingsError
from napari_gaussfit.fitting.tiles import Tile, Tiling, default_core, default_halo

SHAPE, CORE, HALO = (40, 70, 33), (16, 24, 40), (4, 8, 8)


@pytest.fixture
def tiling() -> Tiling:
    return Tiling.of(SHAPE, CORE, HALO)


def test_cores_cover_each_voxel_once(tiling: Tiling) -> None:
    covered = np.zeros(SHAPE, np.int64)
    for tile in tiling.tiles():
        covered[tuple(slice(a, b) for a, b in zip(tile.first, tile.end, strict=True))] += 1

    assert (covered == 1).all()
    assert tiling.counts == (3, 3, 1)
    assert len(tiling) == 9


def test_a_box_is_the_core_and_a_halo_within_the_stack(tiling: Tiling) -> None:
    tile = tiling.tile((1, 2, 0))

    assert (tile.first, tile.end) == ((13, 47, 0), (27, 70, 33))
    assert (tile.low, tile.high) == ((9, 39, 0), (31, 70, 33))


def test_tiles_that_touch_have_different_colours_and_wait_in_one_direction() -> None:
    tiling = Tiling.of((64, 64, 64), (16, 16, 16), (4, 4, 4))
    for tile in tiling.tiles():
        touching = [one for one in met(tiling, tile.first, tile.end, beyond=1) if one != tile]
        earlier = set(tiling.earlier_places(tile.place))
        assert all(other.colour != tile.colour for other in touching)
        for other in touching:
            waits = tile.place in tiling.earlier_places(other.place)
            assert waits != (other.place in earlier)


def test_tiles_of_one_colour_see_no_voxel_of_each_others_core() -> None:
    tiling = Tiling.of((64, 64, 64), (16, 16, 16), (8, 8, 8))
    tiles = [*tiling.tiles()]
    for tile in tiles:
        for other in tiles:
            if other.place != tile.place and other.colour == tile.colour:
                overlaps = [
                    min(tile.high[n], other.end[n]) > max(tile.low[n], other.first[n])
                    for n in range(3)
                ]
                assert not all(overlaps), f"{tile} sees {other}"


def test_points_belong_to_the_core_that_holds_their_voxel(tiling: Tiling) -> None:
    points = np.array([[12.4, 0, 0], [12.6, 0, 0], [-9, 69.4, 32], [99, 46.49, 5]])

    places = tiling.places_of(points)

    assert places.tolist() == [[0, 0, 0], [1, 0, 0], [0, 2, 0], [2, 1, 0]]


def test_distances_from_seams_count_in_halos(tiling: Tiling) -> None:
    at = np.array([[12.5, 35, 0], [8.5, 11, 3], [20, 46.5 + 4, 3]])

    assert np.allclose(tiling.seam_distances(at), [0, 1, 0.5])
    whole = Tiling.of(SHAPE, SHAPE, HALO)
    assert np.isinf(whole.seam_distances(at)).all()


def test_tiles_over_seams_have_every_seam_inside_and_none_where_there_is_none(
    tiling: Tiling,
) -> None:
    over, tiles = tiling.over_seams()

    seams = np.zeros(SHAPE, np.bool_)
    for n in tiling.edges[0][1:-1]:
        seams[n - 1 : n + 1] = True
    for n in tiling.edges[1][1:-1]:
        seams[:, n - 1 : n + 1] = True
    for tile in tiles:
        box = tuple(slice(a, b) for a, b in zip(tile.first, tile.end, strict=True))
        assert seams[box].any(), "a tile without a seam"
        seams[box] = False
    assert not seams.any()
    assert over.edges == ((0, 6, 20, 33, 40), (0, 11, 35, 58, 70), (0, 33))
    assert Tiling.of(SHAPE, SHAPE, HALO).over_seams()[1] == []


def test_cores_smaller_than_two_halos_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"7 voxels along z make tiles of 7; .* at least 8"):
        Tiling.of((14, 20, 20), (7, 20, 20), (4, 4, 4))
    Tiling.of((7, 20, 20), (7, 20, 20), (4, 4, 4))


def test_sizes_that_are_not_asked_for_go_by_the_spacing() -> None:
    assert default_core((0.4, 0.1, 0.1)) == (32, 128, 128)
    assert default_halo((0.4, 0.1, 0.1)) == (3, 12, 12)


def test_what_two_tiles_see_on_different_sides_of_a_seam_is_committed_by_one() -> None:
    tiling = Tiling.of((16, 16, 64), (16, 16, 32), (4, 4, 8))
    first, second = tiling.tile((0, 0, 0)), tiling.tile((0, 0, 1))

    def commits(tile: Tile, x: float) -> bool:
        return bool(tiling.committed(tile, np.array([[8.0, 8.0, x]]))[0])

    # The first one sees it beyond the seam and leaves it; the second sees it before, and takes it.
    assert not commits(first, 31.6)
    assert commits(second, 31.4)
    assert commits(first, 31.4)
    assert commits(second, 31.6)
    # Farther in than half a halo, what is seen there is cut off by the end of what is seen.
    assert commits(second, 28)
    assert not commits(second, 27)
