"""Compiled kernels that numba keeps on disk: forgotten when the code that they share changes.

Numba knows a kernel as stale by the content of its own file. What it calls stands in others: with
an older copy of these compiled in, a kernel would compute what no source says any more.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

SHARED = (
    "limits.py",
    "arithmetic.py",
    "footprint.py",
    "profiles.py",
    "adam.py",
    "lanes.py",
    "vectors.py",
    "cpu_boxes.py",
    "cpu_rays.py",
)
"""Sources of functions that kernels of other files compile in."""

STAMP = "shared-kernel-code.sha256"


def forget_stale(folder: Path, sources: Path = Path(__file__).parent) -> bool:
    """Delete the kernels in numba's folder that were compiled with other shared code.

    Parameters
    ----------
    folder : Path
        Where numba keeps the kernels.
    sources : Path
        Where `SHARED` are.

    Returns
    -------
    bool
        Whether they were of other shared code, or of unknown.
    """
    digest = hashlib.sha256(b"".join((sources / name).read_bytes() for name in SHARED)).hexdigest()
    stamp = folder / STAMP
    # A folder that cannot be written holds what it was made with.
    with contextlib.suppress(OSError):
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for kept in (*folder.glob("c*.nbi"), *folder.glob("c*.nbc")):
            kept.unlink(missing_ok=True)
        stamp.write_text(digest, encoding="utf-8")
    return True
