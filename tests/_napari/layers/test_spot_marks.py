"""What a person does to points is kept as what they say of spots."""

from __future__ import annotations

import numpy as np
import pytest

from napari_gaussfit._napari.layers.spots import Marks, matching, still_there

pytestmark = pytest.mark.gui

SHOWN = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_a_point_that_is_added_is_kept_and_one_that_is_deleted_is_left_out() -> None:
    marks = Marks.none().after(SHOWN, np.array([[1.0, 2, 3], [7, 8, 9], [3, 3, 3]]))
    np.testing.assert_array_equal(marks.added, [[3, 3, 3]])
    np.testing.assert_array_equal(marks.excluded, [[4, 5, 6]])


def test_a_point_that_is_moved_is_left_out_where_it_was_and_kept_where_it_is() -> None:
    moved = SHOWN.copy()
    moved[1, 1] = 9
    marks = Marks.none().after(SHOWN, moved)
    np.testing.assert_array_equal(marks.added, [[4, 9, 6]])
    np.testing.assert_array_equal(marks.excluded, [[4, 5, 6]])


def test_what_a_person_added_and_deletes_again_says_nothing() -> None:
    with_one = np.concatenate([SHOWN, [[3, 3, 3]]])
    marks = Marks.none().after(SHOWN, with_one)
    assert len(marks.after(with_one, SHOWN)) == 0


def test_a_place_that_was_left_out_and_is_added_again_is_kept() -> None:
    marks = Marks.none().after(SHOWN, SHOWN[1:])
    marks = marks.after(SHOWN[1:], SHOWN)
    assert len(marks.excluded) == 0
    np.testing.assert_array_equal(marks.added, SHOWN[:1])


def test_places_are_found_among_others() -> None:
    np.testing.assert_array_equal(matching(SHOWN, SHOWN[[2, 0]]), [1, -1, 0])
    assert not still_there(SHOWN, np.zeros((0, 3))).any()
    assert len(matching(np.zeros((0, 3)), SHOWN)) == 0
