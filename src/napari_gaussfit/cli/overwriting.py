"""What a command must not write over, by its options."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

__all__ = ["refuse_further", "refuse_to_destroy"]


def refuse_to_destroy(arguments: argparse.Namespace, stack: Path | None = None) -> None:
    """Refuse a target that exists, is what is read, or is a folder of somebody else's."""
    from napari_gaussfit.formats.registry import fit_path
    from napari_gaussfit.jobs.overwriting import refuse_to_replace
    from napari_gaussfit.stacks.ome_zarr import refuse_foreign_folder

    read = [fit_path(arguments.fit), *([] if stack is None else [stack])]
    refuse_to_replace([arguments.out], inputs=read, force=arguments.force)
    refuse_foreign_folder(arguments.out)


def refuse_further(arguments: argparse.Namespace, table: str) -> None:
    """Refuse names of further files before anything is computed."""
    from napari_gaussfit.formats import registry
    from napari_gaussfit.jobs.overwriting import refuse_to_replace
    from napari_gaussfit.stacks.ome_zarr import refuse_foreign_folder

    for path in arguments.also:
        registry.writer_of(path, getattr(registry, table))
        refuse_foreign_folder(path)
    refuse_to_replace(arguments.also, inputs=[arguments.stack], force=arguments.force)
