"""The window that says which field of a layer takes which value."""

from qgis.gui import QgsFieldComboBox
from qgis.PyQt.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QLabel, QVBoxLayout

from .target import FIELDS, choose_fields, mapping_of
from .words import tr


class FieldsWindow(QDialog):
    """Choices of fields for one layer; kept with the layer when accepted."""

    def __init__(self, layer, parent=None):
        super().__init__(parent)
        self.setWindowTitle(tr("Fields of {}").format(layer.name()))
        self._layer = layer
        self.boxes = {}
        rows = QVBoxLayout(self)
        note = QLabel(
            tr("Which field takes what an outline says of itself? An empty choice leaves it out.")
        )
        note.setWordWrap(True)
        rows.addWidget(note)
        form = QFormLayout()
        mapping = mapping_of(layer)
        for ours, _, _ in FIELDS:
            box = QgsFieldComboBox()
            box.setAllowEmptyFieldName(True)
            box.setLayer(layer)
            box.setField(mapping.get(ours, ""))
            form.addRow(ours, box)
            self.boxes[ours] = box
        rows.addLayout(form)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        rows.addWidget(buttons)

    def accept(self):
        """Keep the choices."""
        choose_fields(
            self._layer,
            {ours: box.currentField() for ours, box in self.boxes.items() if box.currentField()},
        )
        super().accept()
