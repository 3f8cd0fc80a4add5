"""A button that says how many columns of a table there is no room for, and lets one choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QPushButton

if TYPE_CHECKING:
    from napari_gaussfit._napari.panel.row_view import RowView

__all__ = ["ColumnsButton"]


class ColumnsButton(QPushButton):
    """Shows a table's menu of columns.

    Parameters
    ----------
    view : RowView
        The table whose columns it offers.
    """

    def __init__(self, view: RowView) -> None:
        super().__init__()
        self._view = view
        self.setToolTip("Choose which columns are shown, here or in the header's menu.")
        self.pressed.connect(self._offer)
        view.columns_changed.connect(self._count)
        self._count()

    def _count(self) -> None:
        more = len(self._view.left_out)
        named = f"{more} more column{'s' * (more > 1)}"
        self.setText(named if more else "Columns")

    def _offer(self) -> None:
        menu = self._view.column_menu()
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.popup(self.mapToGlobal(self.rect().bottomLeft()))
        self.setDown(False)
