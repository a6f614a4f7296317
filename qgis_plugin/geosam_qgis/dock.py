"""The panel's widgets, and nothing of what they do."""

from qgis.core import QgsMapLayerProxyModel
from qgis.gui import (
    QgsCollapsibleGroupBoxBasic,
    QgsColorButton,
    QgsDockWidget,
    QgsMapLayerComboBox,
)
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QMenu,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .words import duration, tr

WIDTH_PX = 340


class Dock(QgsDockWidget):
    """The panel. Its widgets tell what the user did; the methods show what is so."""

    def __init__(self, parent=None):
        super().__init__("geosam", parent)
        self.setObjectName("geosam")
        inside = QWidget()
        column = QVBoxLayout(inside)
        column.setContentsMargins(6, 6, 6, 6)
        column.setSpacing(4)
        for part in (
            self._image(),
            self._object(),
            self._outline(),
            self._saving(),
            self._many(),
        ):
            column.addWidget(part)
        column.addStretch(1)
        scroll = _Column()
        scroll.setWidget(inside)
        outer = QWidget()
        rows = QVBoxLayout(outer)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(scroll, 1)
        rows.addWidget(self._actions())  # always in reach, however low the window
        rows.addWidget(self._engine())
        self.setWidget(outer)

    def _image(self):
        box, form = _group(tr("Image"))
        self.raster = _layers(QgsMapLayerProxyModel.Filter.RasterLayer)
        self.model = _choice()
        self.model.addItem("nano", "nano")
        self.scope = _choice()
        for text, value in (
            (tr("Map view"), "view"),
            (tr("Whole raster"), "whole"),
            (tr("Selected polygons"), "selection"),
        ):
            self.scope.addItem(text, value)
        self.scope.setToolTip(tr("Selected polygons: those of the layer that is active."))
        self.encode = QPushButton(tr("Encode"))
        self.encode.setToolTip(
            tr("Prepare the image once, so that outlines come at once. What is done is kept.")
        )
        self.progress, self.cancel, self.progress_row = _progress()
        self.image_state = _note()
        self.export = QPushButton(tr("Export what the map shows..."))
        self.export.setVisible(False)
        form.addRow(tr("Raster"), self.raster)
        form.addRow(tr("Model"), self.model)
        form.addRow(tr("Encode"), _row((self.scope, 1), (self.encode, 0)))
        for part in (self.progress_row, self.image_state, self.export):
            form.addRow(part)
        return box

    def _object(self):
        box, form = _group(tr("Object"))
        self.point = QPushButton(tr("Outline objects"))
        self.point.setCheckable(True)
        self.point.setToolTip(tr("Left click: on the object. Right click: not this. Drag: a box."))
        self.prompts = QListWidget()
        self.prompts.setFixedHeight(44)
        self.prompts.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.prompts.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.readings = []
        for _ in range(3):
            button = QToolButton()
            button.setCheckable(True)
            button.setAutoExclusive(True)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.setToolTip(tr("What the click may mean, with the model's score"))
            self.readings.append(button)
        self.readings_row = _row((QLabel(tr("Readings")), 0), *((b, 1) for b in self.readings))
        self.readings_row.setVisible(False)
        self.object_state = _note()
        for part in (self.point, self.prompts, self.readings_row, self.object_state):
            form.addRow(part)
        return box

    def _outline(self):
        box, form = _group(tr("Outline"))
        self.simplify = _number(1000, 0.1, " m", tr("automatic"))
        self.min_area = _number(1e9, 1, " m²", tr("keep all"))
        self.holes = _number(1e9, 1, " m²", tr("tiny ones"))
        self.holes.setToolTip(
            tr("Holes smaller than this are filled; by default those of 16 pixels.")
        )
        self.square = QCheckBox(tr("Right angles"))
        form.addRow(tr("Simplify"), self.simplify)
        form.addRow(tr("Leave out below"), self.min_area)
        form.addRow(tr("Fill holes below"), self.holes)
        form.addRow("", self.square)
        return box

    def _saving(self):
        box, form = _group(tr("Save to"))
        self.target = _layers(QgsMapLayerProxyModel.Filter.PolygonLayer)
        self.new_target = QToolButton()
        self.new_target.setText(tr("New..."))
        self.new_target.setToolTip(tr("Make a GeoPackage with a layer of outlines"))
        self.fields = QToolButton()
        self.fields.setText(tr("Fields..."))
        self.fields.setToolTip(tr("Which field of the layer takes which value"))
        self.kind = _choice()
        self.kind.setEditable(True)
        self.kind.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.kind.setToolTip(tr("Choose a class, or type a new one"))
        self.colour = QgsColorButton()
        self.colour.setFixedWidth(54)
        form.addRow(tr("Layer"), _row((self.target, 1), (self.new_target, 0)))
        form.addRow(tr("Class"), _row((self.kind, 1), (self.colour, 0), (self.fields, 0)))
        return box

    def _many(self):
        box = QgsCollapsibleGroupBoxBasic(tr("Many at once"))
        self.many, form = box, _form(box)
        self.many_scope = _choice()
        for text, value in (
            (tr("Everything in the map view"), "view"),
            (tr("Everything in the raster"), "whole"),
            (tr("Everything in selected polygons"), "selection"),
            (tr("Each feature of a layer"), "layer"),
        ):
            self.many_scope.addItem(text, value)
        self.many_scope.setToolTip(tr("Selected polygons: those of the layer that is active."))
        kinds = QgsMapLayerProxyModel.Filter
        self.prompts_layer = _layers(kinds.PointLayer | kinds.PolygonLayer)
        self.prompts_layer.setToolTip(tr("Points on objects, boxes round them, or rough outlines"))
        self.selected = QCheckBox(tr("Selected features only"))
        self.max_area = _number(1e12, 100, " m²", tr("keep all"))
        self.coverage = QCheckBox(tr("Share out all ground"))
        self.coverage.setToolTip(
            tr("Without overlaps or gaps; such outlines are saved as they come.")
        )
        self.many_start = QPushButton(tr("Outline all"))
        self.many_start.setToolTip(
            tr("Save all outlines to the layer above, in the class above, as one step.")
        )
        self.many_progress, self.many_cancel, self.many_progress_row = _progress()
        self.many_state = _note()
        form.addRow(self.many_scope)
        form.addRow(tr("Layer"), self.prompts_layer)
        form.addRow("", self.selected)
        form.addRow(tr("Leave out above"), self.max_area)
        form.addRow("", self.coverage)
        for part in (self.many_start, self.many_progress_row, self.many_state):
            form.addRow(part)
        box.setCollapsed(True)
        return box

    def _actions(self):
        self.save = QPushButton(tr("Save"))
        self.save.setToolTip(tr("Enter or S"))
        self.back = QPushButton(tr("Take back"))
        self.back.setToolTip(tr("Take back the last prompt: Backspace"))
        self.clear = QPushButton(tr("Clear"))
        self.clear.setToolTip(tr("Forget the prompts: Esc"))
        row = _row((self.save, 2), (self.back, 1), (self.clear, 1))
        row.layout().setContentsMargins(8, 4, 8, 0)
        return row

    def _engine(self):
        self.engine_state = _note()
        self.engine_button = QPushButton(tr("Start"))
        self.engine_button.setVisible(False)
        self.engine_menu = QMenu(self)
        self.engine_more = QToolButton()
        self.engine_more.setText("⋯")
        self.engine_more.setToolTip(tr("Engine"))
        self.engine_more.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.engine_more.setMenu(self.engine_menu)
        foot = _row((self.engine_state, 1), (self.engine_button, 0), (self.engine_more, 0))
        foot.layout().setContentsMargins(8, 4, 8, 6)
        return foot

    def sizeHint(self):
        """Wide enough to read, whatever the layers are called."""
        return QSize(max(WIDTH_PX, self.minimumSizeHint().width()), super().sizeHint().height())

    def show_progress(self, done, total, left_s):
        """Show how far encoding is; a total of 0 is not known yet."""
        self.progress_row.setVisible(True)
        self.encode.setEnabled(False)
        _show(self.progress, done, total, left_s)

    def hide_progress(self):
        """Encoding is over."""
        self.progress_row.setVisible(False)
        self.encode.setEnabled(True)

    def show_many_progress(self, done, total, left_s):
        """Show how far many outlines are; a total of 0 is not known yet."""
        self.many_progress_row.setVisible(True)
        self.many_start.setEnabled(False)
        _show(self.many_progress, done, total, left_s)

    def hide_many_progress(self):
        """Many outlines are done."""
        self.many_progress_row.setVisible(False)
        self.many_start.setEnabled(True)

    def show_many_controls(self, of_layer):
        """Show what is to be said of a layer's features, or of everything."""
        form = self.many.layout()
        for part in (self.prompts_layer, self.selected, self.max_area, self.coverage):
            shown = of_layer == (part in (self.prompts_layer, self.selected))
            for widget in filter(None, (part, form.labelForField(part))):
                widget.setVisible(shown)

    def show_prompts(self, prompts):
        """List the prompts."""
        self.prompts.clear()
        for kind, *rest in prompts:
            if kind == "box":
                self.prompts.addItem(tr("▭ box"))
            else:
                self.prompts.addItem(tr("+ on the object") if rest[2] else tr("× not this"))
        self.prompts.scrollToBottom()

    def show_readings(self, scores, chosen):
        """Offer the readings of a lone click by their scores, None for an empty one."""
        self.readings_row.setVisible(len(scores) > 1)
        for number, (button, score) in enumerate(zip(self.readings, scores)):
            button.setEnabled(score is not None)
            button.setText(str(number + 1) if score is None else f"{number + 1}: {score:.2f}")
            button.setChecked(number == chosen)


class _Column(QScrollArea):
    """Scrolls up and down only: it is never narrower than what is in it."""

    def __init__(self):
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self):
        inside = self.widget().minimumSizeHint().width()
        return QSize(inside + self.verticalScrollBar().sizeHint().width(), 120)


def _group(title):
    box = QGroupBox(title)
    return box, _form(box)


def _form(box):
    form = QFormLayout(box)
    form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    form.setContentsMargins(8, 4, 8, 6)
    form.setVerticalSpacing(5)
    return form


def _progress():
    """A bar, a button that cancels, and the row of both, which is not shown yet."""
    bar, cancel = QProgressBar(), QToolButton()
    cancel.setText(tr("Cancel"))
    row = _row((bar, 1), (cancel, 0))
    row.setVisible(False)
    return bar, cancel, row


def _show(bar, done, total, left_s):
    bar.setMaximum(total)
    bar.setValue(done)
    left = "" if left_s is None else tr(", {} left").format(duration(left_s))
    bar.setFormat(f"{done}/{total}{left}")


def _row(*parts):
    """Widgets beside each other, each with its stretch."""
    row = QWidget()
    line = QHBoxLayout(row)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(4)
    for part, stretch in parts:
        line.addWidget(part, stretch)
    return row


def _choice(box=None):
    """A combo box that gives way: a long name never widens the panel."""
    box = QComboBox() if box is None else box
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    return box


def _layers(kind):
    box = _choice(QgsMapLayerComboBox())
    box.setFilters(kind)
    box.setAllowEmptyLayer(True)
    return box


def _number(most, step, unit, at_zero):
    box = QDoubleSpinBox()
    box.setRange(0, most)
    box.setSingleStep(step)
    box.setDecimals(2)
    box.setSuffix(unit)
    box.setSpecialValueText(at_zero)
    box.setMinimumWidth(80)
    return box


def _note():
    label = QLabel()
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label
