"""Objects of one time are linked to those of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_gaussfit.objects.tracks import link

if TYPE_CHECKING:
    from numpy.typing import NDArray

STANDING = np.full(3, 0.01)


def walks(
    seed: int, times: int = 12, count: int = 40, missed: float = 0.0
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Objects that walk at random, in a new order at each time, some of them missed."""
    rng = np.random.default_rng(seed)
    cells = np.indices((3, 4, 4)).reshape(3, -1).T[:count] * 3.0
    places, names = [], []
    for _ in range(times):
        cells = cells + rng.normal(0.0, (0.2, 0.1, 0.1), cells.shape)
        order = rng.permutation(np.flatnonzero(rng.random(len(cells)) >= missed))
        places.append(cells[order])
        names.append(order)
    return places, names


def test_objects_keep_their_track_in_whatever_order_they_come() -> None:
    places, names = walks(0)
    tracks = link(places, STANDING)
    assert len(tracks) == 40
    of = dict(zip(names[0], tracks.numbers[0], strict=True))
    for order, numbers in zip(names, tracks.numbers, strict=True):
        assert [of[name] for name in order] == numbers.tolist()


def test_the_steps_are_told_along_each_axis() -> None:
    tracks = link(walks(1)[0], STANDING)
    np.testing.assert_allclose(tracks.steps, (0.2, 0.1, 0.1), rtol=0.15)


def test_an_object_that_is_missed_once_keeps_its_track() -> None:
    places, names = walks(2, missed=0.03)
    tracks = link(places, STANDING)
    of: dict[int, set[int]] = {}
    for order, numbers in zip(names, tracks.numbers, strict=True):
        for name, number in zip(order, numbers, strict=True):
            of.setdefault(int(name), set()).add(int(number))
    assert sum(len(found) > 1 for found in of.values()) <= 2


def test_what_is_known_is_kept_and_the_rest_is_linked() -> None:
    near, far = np.array([[0.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 9.0]])
    others = np.arange(12).reshape(-1, 1) * np.array([[5.0, 5.0, 0.0]]) + 20.0
    first, second = np.vstack([near, far, others]), np.vstack([far, near, others + 0.05])
    stays = np.arange(2, 14)
    swapped = np.concatenate([[0, 1], np.where(stays % 2, stays, -1)])
    tracks = link([first, second], STANDING, follows=[np.full(14, -1), swapped])
    assert tracks.numbers[1][:2].tolist() == [0, 1]
    assert tracks.numbers[1].tolist() == list(range(14))


def test_farther_than_the_reach_is_another_object() -> None:
    places = [np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 0.0, 3.0]])]
    tracks = link(places, STANDING, reach=1.5)
    assert [numbers.tolist() for numbers in tracks.numbers] == [[0], [0], [1]]


def test_the_table_says_when_tracks_begin_and_end() -> None:
    places = [np.zeros((1, 3)), np.zeros((0, 3)), np.zeros((0, 3)), np.ones((2, 3)) * [[5], [50]]]
    table = link(places, STANDING, times=(2, 4, 6, 8)).table()
    assert table["first"].tolist() == [2, 8, 8]
    assert table["last"].tolist() == [2, 8, 8]
    assert table["born"].tolist() == [False, True, True]
    assert table["died"].tolist() == [True, False, False]


def test_times_without_objects_have_no_tracks() -> None:
    assert len(link([np.zeros((0, 3))] * 3, STANDING)) == 0
