"""The table of the notebook that the project grew out of: what it has, and what proves it here.

A test says with ``@pytest.mark.notebook(row, api=...)`` which row it proves, by which public name.
``pytest --notebook-table FILE`` writes the table of a run, for the documentation.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = "napari_gaussfit"
MARK = "notebook"

ROWS = {
    "field": "LearnableGaussianField: means, Cholesky factors, amplitudes; values at points; "
    "diagonal-only option",
    "evaluate": "One Gaussian, many, and lists of (mean, covariance, weight)",
    "voxel-loss": "Squared error of voxels, in batches",
    "gradient-monitoring": "Gradients of each group of parameters, and plots of their evolution",
    "world-to-camera": "Means and covariances in a camera's axes, S' = R S R^T",
    "perspective-jacobian": "Perspective projection: 2D covariances by the Jacobian; depths",
    "splatting-2d": "2D Gaussians, and the demo: three of them fitted to a 32 x 32 image",
    "densify-prune": "Split, clone; prune by emission, size and bounds",
    "mip-views": "MIPs of voxels for a camera; look-at cameras; 60 views, 50 trained on, 10 not",
    "mip-splatting-model": "MIPSplattingModel: amplitudes per channel, soft-MIP, the box, Adam, "
    "the loss's history",
    "psnr-gap": "PSNR of training and of test views, and their gap",
    "checkpoints": "Checkpoints of every layout, and the box that each is in",
    "plots": "Centres in 3D coloured by amplitude, histograms of amplitudes and scales",
    "benchmarks": "A loop against a batched solve; the fused kernel of the dense field and its "
    "hand-written backward pass, timed",
}

ORDER = ("passed", "skipped", "xfailed", "failed")
"""Outcomes from best to worst: a test that ran with several parameters shows the worst."""


@dataclass
class Proof:
    """A test that proves a row: its place, its title, the public name, and how it ended."""

    place: str
    api: str
    outcomes: dict[str, str] = field(default_factory=dict)

    def outcome(self) -> str:
        """Say how the test ended."""
        if not self.outcomes:
            return "not run"
        worst = max(self.outcomes.values(), key=ORDER.index)
        return worst if len(self.outcomes) == 1 else f"{worst} ({len(self.outcomes)})"


class NotebookTable:
    """Collects proofs during a run and writes them when it ends.

    Tests that run side by side are collected in other processes: their marks come with reports.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proofs: dict[str, dict[tuple[str, str], Proof]] = {row: {} for row in ROWS}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which rows the tests of this run prove."""
        for item in session.items:
            self._proofs_by(item)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how a test ended, by the worst of its setup, call and teardown."""
        for proof in self._proofs_by(report):
            found = "xfailed" if hasattr(report, "wasxfail") else report.outcome
            known = proof.outcomes.get(report.nodeid, "passed")
            proof.outcomes[report.nodeid] = max(found, known, key=ORDER.index)

    def _proofs_by(self, test: pytest.Item | pytest.TestReport) -> list[Proof]:
        # After an @ stands the group, where tests run side by side.
        place = test.nodeid.partition("[")[0].partition("@")[0]
        return [
            self.proofs[row].setdefault((place, api), Proof(place, api))
            for kind, (row, api) in test.user_properties
            if kind == MARK
        ]

    def pytest_sessionfinish(self) -> None:
        """Write the table."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("\n".join(self.lines()) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """Return the table in Markdown: a line for each row and proof."""
        table = ["| row | the notebook | here | proven by | outcome |", "|---|---|---|---|---|"]
        for row, text in ROWS.items():
            what = [f"`{row}`", text.replace("|", "\\|")]
            for _, proof in sorted(self.proofs[row].items()):
                named = f"{{py:obj}}`{proof.api} <{full_name(proof.api)}>`"
                table.append(
                    f"| {' | '.join([*what, named, f'`{proof.place}`'])} | {proof.outcome()} |"
                )
                what = ["", ""]
            if not self.proofs[row]:
                table.append(f"| {' | '.join(what)} | – | no test in this run | – |")
        return table


def full_name(api: str) -> str:
    """Return a public name with its module, by which the reference knows it."""
    package = importlib.import_module(PACKAGE)
    first, _, rest = api.partition(".")
    if first in package.__all__:
        home = getattr(package, first).__module__
        return f"{home}.{api}"
    return api if first in {PACKAGE, "benchmarks"} or not rest else f"{PACKAGE}.{api}"


def note_marks(item: pytest.Item) -> None:
    """Have a test's reports say which rows it proves; refuse a row that the table does not have."""
    for mark in item.iter_markers(MARK):
        if len(mark.args) != 1 or mark.args[0] not in ROWS or set(mark.kwargs) != {"api"}:
            message = (
                f"{item.nodeid}: notebook{mark.args}{mark.kwargs}; expected "
                f"notebook(row, api=name) with one of {', '.join(ROWS)}"
            )
            raise pytest.UsageError(message)
        item.user_properties.append((MARK, (mark.args[0], mark.kwargs["api"])))
