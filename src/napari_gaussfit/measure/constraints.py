"""What is known of Gaussians before they are measured: `Constraints`. Knows no kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from napari_gaussfit.errors import SettingsError

if TYPE_CHECKING:
    from napari_gaussfit.measure.psf import Psf

__all__ = ["Constraints"]

Shape = Literal["any", "aligned", "sphere", "point"]
Widths = Literal["free", "shared", "given"]
Centres = Literal["free", "given"]


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What is known of Gaussians before they are measured.

    Parameters
    ----------
    shape : {"any", "aligned", "sphere", "point"}
        Of objects, before light blurs them where `psf` says how: ellipsoids of any orientation,
        with axes along z, y and x, spheres, or points, which have a centre and an amplitude alone.
    widths : {"free", "shared", "given"}
        Each has its own, all have the same, or they stay as they were given.
    centres : {"free", "given"}
        They stay as they were given, or not.
    psf : Psf, optional
        The covariance of a Gaussian is the sum of its object's, which is no less than 0, and this.

    Raises
    ------
    SettingsError
        If one is none of these, or two contradict each other.
    """

    shape: Shape = "any"
    widths: Widths = "free"
    centres: Centres = "free"
    psf: Psf | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name, kinds in (("shape", Shape), ("widths", Widths), ("centres", Centres)):
            value, choices = getattr(self, name), get_args(kinds)
            if value not in choices:
                expected = ", ".join(map(repr, choices))
                raise SettingsError(f"{name}={value!r}: expected one of {expected}")
        if self.shape == "point" and self.psf is None:
            raise SettingsError("shape='point': a point is as wide as light makes it; give psf")
        if self.shape != "any" and self.widths == "given":
            raise SettingsError(f"widths='given' leaves no shape={self.shape!r}; leave one out")
        if self.shape == "point" and self.widths == "shared":
            raise SettingsError("shape='point' has no width that is shared; leave widths out")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is assumed, for a person."""
        said = {
            "shape": {
                "any": "",
                "aligned": "axes along z, y, x",
                "sphere": "spheres",
                "point": "points",
            }[self.shape],
            "widths": {"free": "", "shared": "one width for all", "given": "given widths"}[
                self.widths
            ],
            "centres": "given centres" if self.centres == "given" else "",
            "psf": "" if self.psf is None else f"blurred by a PSF of {self.psf.words}",
        }
        words = ", ".join(word for word in said.values() if word)
        return (f"assumed: {words}",) if words else ()
