"""How good a fit is, and what there is to know of each of its Gaussians.

``from napari_gaussfit import measure`` brings this package, and calling it calls
`measuring.measure`: a function of the package's own name could not stand beside it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Measure(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from napari_gaussfit.measure.measuring import measure

        return measure(*arguments, **options)


sys.modules[__name__].__class__ = _Measure
