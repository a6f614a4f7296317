"""The panel's widgets, and nothing of what they do."""

from qgis.core import QgsMapLayerProxyModel
from qgis.gui import QgsColorButton, QgsDockWidget, QgsMapLayerComboBox
from qgis.PyQt.QtCore import QCoreApplication, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

COLOURS = ("#ff7f0e", "#2ca02c", "#1f77b4", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22")


def tr(text):
    """The text in the user's language."""
    return QCoreApplication.translate("geosam", text)


class Dock(QgsDockWidget):
    """The panel. Signals tell what the user did; the methods show what is so.

    Signals:
        closed: the user closed the panel.
    """

    closed = pyqtSignal()

    def __init__(self, parent=None):
        super().__init__(tr("geosam"), parent)
        self.setObjectName("geosam")
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(8, 8, 8, 8)
        column.setSpacing(8)
        for part in (self._image(), self._object(), self._outline(), self._saving()):
            column.addWidget(part)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        outer = QWidget()
        rows = QVBoxLayout(outer)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.addWidget(scroll, 1)
        rows.addWidget(self._engine())
        self.setWidget(outer)
        self.setMinimumWidth(300)

    def _image(self):
        box, form = _group(tr("Image"))
        self.raster = QgsMapLayerComboBox()
        self.raster.setFilters(QgsMapLayerProxyModel.Filter.RasterLayer)
        self.raster.setAllowEmptyLayer(True)
        self.model = QComboBox()
        self.model.addItem("nano")
        form.addRow(tr("Raster"), self.raster)
        form.addRow(tr("Model"), self.model)
        self.scope = QComboBox()
        for text, value in (
            (tr("What the map shows"), "view"),
            (tr("Whole raster"), "whole"),
            (tr("Selected polygons"), "selection"),
        ):
            self.scope.addItem(text, value)
        self.encode = QPushButton(tr("Encode"))
        self.encode.setToolTip(tr("Prepare the image once, so that outlines come at once."))
        row = QHBoxLayout()
        row.addWidget(self.scope, 1)
        row.addWidget(self.encode)
        form.addRow(tr("Encode"), row)
        self.progress = QProgressBar()
        self.progress.setTextVisible(True)
        self.cancel = QToolButton()
        self.cancel.setText(tr("Cancel"))
        row = QHBoxLayout()
        row.addWidget(self.progress, 1)
        row.addWidget(self.cancel)
        self.progress_row = QWidget()
        self.progress_row.setLayout(row)
        row.setContentsMargins(0, 0, 0, 0)
        self.progress_row.setVisible(False)
        form.addRow(self.progress_row)
        self.image_state = _note()
        form.addRow(self.image_state)
        return box

    def _object(self):
        box, form = _group(tr("Object"))
        self.point = QPushButton(tr("Outline objects"))
        self.point.setCheckable(True)
        self.point.setToolTip(
            tr("Left click: on the object. Right click: not this. Drag: a box.")
        )
        form.addRow(self.point)
        self.prompts = QListWidget()
        self.prompts.setMaximumHeight(72)
        form.addRow(self.prompts)
        self.readings = QHBoxLayout()
        self.reading_buttons = []
        for number in range(3):
            button = QToolButton()
            button.setCheckable(True)
            button.setAutoExclusive(True)
            button.setText(str(number + 1))
            button.setVisible(False)
            self.readings.addWidget(button)
            self.reading_buttons.append(button)
        self.readings.addStretch(1)
        form.addRow(tr("Readings"), self.readings)
        self.object_state = _note()
        form.addRow(self.object_state)
        return box

    def _outline(self):
        box, form = _group(tr("Outline"))
        self.simplify = _number(0, 100, 0.1, " m")
        self.simplify.setSpecialValueText(tr("automatic"))
        self.min_area = _number(0, 1e9, 1, " m²")
        self.min_area.setSpecialValueText(tr("keep all parts"))
        form.addRow(tr("Simplify"), self.simplify)
        form.addRow(tr("Smallest part"), self.min_area)
        return box

    def _saving(self):
        box, form = _group(tr("Save to"))
        self.target = QgsMapLayerComboBox()
        self.target.setFilters(QgsMapLayerProxyModel.Filter.PolygonLayer)
        self.target.setAllowEmptyLayer(True)
        self.new_target = QToolButton()
        self.new_target.setText(tr("New..."))
        row = QHBoxLayout()
        row.addWidget(self.target, 1)
        row.addWidget(self.new_target)
        form.addRow(tr("Layer"), row)
        self.kind = QComboBox()
        self.kind.setEditable(True)
        self.kind.addItems([tr("object"), tr("tree"), tr("building"), tr("field"), tr("water")])
        self.colour = QgsColorButton()
        self.colour.setColor(QColor(COLOURS[0]))
        row = QHBoxLayout()
        row.addWidget(self.kind, 1)
        row.addWidget(self.colour)
        form.addRow(tr("Class"), row)
        row = QHBoxLayout()
        self.save = QPushButton(tr("Save (Enter)"))
        self.back = QPushButton(tr("Back"))
        self.clear = QPushButton(tr("Clear"))
        for button in (self.save, self.back, self.clear):
            row.addWidget(button, 1 + (button is self.save))
        form.addRow(row)
        return box

    def _engine(self):
        foot = QWidget()
        row = QHBoxLayout(foot)
        row.setContentsMargins(8, 4, 8, 6)
        self.engine_state = _note()
        self.engine_button = QToolButton()
        self.engine_button.setText(tr("Start"))
        self.engine_button.setVisible(False)
        self.engine_report = QToolButton()
        self.engine_report.setText("…")
        self.engine_report.setToolTip(tr("Engine: where it is, how it is, a report to copy"))
        row.addWidget(self.engine_state, 1)
        row.addWidget(self.engine_button)
        row.addWidget(self.engine_report)
        return foot

    def show_progress(self, done, total, left_s):
        """Show how far encoding is; `None` for all hides it."""
        self.progress_row.setVisible(total is not None)
        self.encode.setEnabled(total is None)
        if total is not None:
            self.progress.setMaximum(total)
            self.progress.setValue(done)
            left = "" if left_s is None else tr(", {} left").format(_duration(left_s))
            self.progress.setFormat("{}/{}{}".format(done, total, left))

    def show_prompts(self, prompts):
        """List the draft's prompts."""
        self.prompts.clear()
        for kind, *rest in prompts:
            if kind == "box":
                self.prompts.addItem(tr("box"))
            else:
                self.prompts.addItem(tr("+ on the object") if rest[2] else tr("− not this"))
        self.prompts.scrollToBottom()

    def show_readings(self, scores, chosen):
        """Offer the readings of a lone click by their scores; none hides them."""
        for number, button in enumerate(self.reading_buttons):
            button.setVisible(number < len(scores))
            if number < len(scores):
                button.setText("{}  {:.2f}".format(number + 1, scores[number]))
                button.setChecked(number == chosen)

    def closeEvent(self, event):
        self.closed.emit()
        super().closeEvent(event)


def _group(title):
    box = QGroupBox(title)
    form = QFormLayout(box)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setContentsMargins(8, 6, 8, 8)
    form.setVerticalSpacing(6)
    return box, form


def _number(low, high, step, unit):
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setSingleStep(step)
    box.setDecimals(1)
    box.setSuffix(unit)
    return box


def _note():
    label = QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def _duration(seconds):
    minutes, seconds = divmod(int(round(seconds)), 60)
    return "{}:{:02d}".format(minutes, seconds)
