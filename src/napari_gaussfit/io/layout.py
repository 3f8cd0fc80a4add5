"""What a file says about its stack before any voxel is read: axes, sizes, spacing, unit.

Knows no file format. A format's reader hands over what the file names, and this module decides
what that means: which axis is z, which choices are open, whether the spacing is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite, prod
from typing import TYPE_CHECKING

from napari_gaussfit.errors import SettingsError, StackError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

__all__ = [
    "PIXEL_SPACING",
    "Spacing",
    "StackLayout",
    "VoxelSize",
    "checked_spacing",
    "interpret_axes",
    "known_proportions",
    "refuse_what_memory_cannot_hold",
    "refused_shape",
