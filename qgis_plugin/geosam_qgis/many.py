"""The part of the panel that outlines many objects at once, and saves them as one step."""

import json
from collections import namedtuple

from qgis.core import Qgis, QgsMessageLog, QgsProject
from qgis.PyQt.QtCore import QObject, pyqtSignal
from qgis.PyQt.QtWidgets import QPushButton

from .areas import NoArea, area_given
from .batch import Batch
from .image import crs_name
from .layer_prompts import count_of, prompts_of
from .slices import Slices
from .target import NotSaved, check
from .words import batch_facts, tr


class Job(namedtuple("Job", "layer crs prompts_crs values")):
    """What outlines are saved with, whatever is chosen in the panel meanwhile.

    Attributes:
        layer: the id of the layer that they go to.
        crs: of the outlines.
        prompts_crs: as the engine takes it; None if everything was asked for.
        values: that all are saved with.
    """


class Many(QObject):
    """Everything in an area, or each feature of a layer: from the button to the layer.

    Nothing is saved before all is done, and what could not be saved is kept until it can.

    Signals:
        failed: it could not begin; why.
    """

    failed = pyqtSignal(str)

    def __init__(self, dock, iface, image, saving, shape):
        """`shape()` says how outlines are to be drawn."""
        super().__init__(image)
        self._dock, self._iface = dock, iface
        self._image, self._saving, self._shape = image, saving, shape
        self._slices = Slices(self)
        self.batch = Batch(image)
        self._job = None
        dock.many_scope.currentIndexChanged.connect(lambda _index: self._show_controls())
        dock.many_start.clicked.connect(lambda: self.start())
        dock.many_cancel.clicked.connect(self.cancel)
        self.batch.progressed.connect(dock.show_many_progress)
        self.batch.ended.connect(lambda found: self._save(found, self._job))
        self.batch.failed.connect(self._stopped)
        self._show_controls()

    @property
    def is_running(self):
        """Whether outlines are being made or saved."""
        return self.batch.is_running or self.is_saving

    @property
    def is_saving(self):
        """Whether outlines are on their way into the layer: its edit command may be open."""
        return self._slices.is_running

    def start(self):
        """Begin what is chosen in the panel."""
        if self.is_running:
            return
        if not self._image.is_open:
            self.failed.emit(tr("Choose a raster first."))
            return
        try:
            check(self._saving.layer)
            if self._dock.many_scope.currentData() == "layer":
                self._outline_features()
            else:
                self._outline_everything()
        except (NoArea, NotSaved) as why:
            self.failed.emit(str(why))

    def cancel(self):
        """Stop; nothing is saved."""
        if self.is_saving:
            self._slices.stop()
            self._stopped("")
        else:
            self.batch.cancel()

    def _outline_features(self):
        layer, selected = self._dock.prompts_layer.currentLayer(), self._dock.selected.isChecked()
        total = 0 if layer is None else count_of(layer, selected)
        if not total:
            raise NoArea(tr("Choose a layer with points, boxes or polygons; select some of them."))
        self._begin(crs_name(layer.crs()))
        prompts = prompts_of(layer, selected)
        self.batch.outline(prompts, total, self._job.prompts_crs, self._shape())

    def _outline_everything(self):
        area = area_given(self._dock.many_scope.currentData(), self._iface)
        self._begin(None)
        dock = self._dock
        self.batch.everything(
            area, dock.max_area.value() or None, self._shape(), dock.coverage.isChecked()
        )

    def _begin(self, prompts_crs):
        values = {"class": self._saving.take_class(), **self._image.facts}
        self._job = Job(self._saving.layer.id(), self._image.crs, prompts_crs, values)
        self._dock.many_state.setText("")

    def _save(self, found, job):
        lacking = [(one.name, one.why) for one in found if one.why]
        good = [one for one in found if not one.why]

        def outlines():
            for one in good:
                asked = one.prompt and json.dumps(dict(one.prompt, crs=job.prompts_crs))
                yield one.polygon, {**job.values, "prompts": asked, "prompt_id": one.name}

        def refuse(number, why):
            lacking.append((good[number].name, str(why)))

        layer = QgsProject.instance().mapLayer(job.layer)
        self._slices.add(
            self._saving.save_all(layer, outlines(), job.crs, refuse),
            lambda: self._saved(len(found), lacking),
            lambda error: self._keep(found, job, error),
        )

    def _saved(self, total, lacking):
        self._dock.hide_many_progress()
        self._dock.many_state.setText(batch_facts(total, lacking))
        for name, why in lacking:
            QgsMessageLog.logMessage(f"{name or '-'}: {why}", "geosam")

    def _keep(self, found, job, error):
        """The layer took none of them: they wait for another, or for the cause to go."""
        self._dock.hide_many_progress()
        bar = self._iface.messageBar()
        note = bar.createMessage("geosam", tr("Not saved: {}").format(error))
        button = QPushButton(tr("Save again"))
        button.clicked.connect(lambda: (bar.popWidget(note), self._save_again(found, job)))
        note.layout().addWidget(button)
        bar.pushWidget(note, Qgis.MessageLevel.Warning)

    def _save_again(self, found, job):
        """To the layer that is chosen by now."""
        layer = self._saving.layer
        self._save(found, job._replace(layer=layer.id() if layer else ""))

    def _stopped(self, why):
        self._dock.hide_many_progress()
        words = tr("{} Nothing was saved.").format(why) if why else tr("Cancelled, nothing saved.")
        self._dock.many_state.setText(words)

    def _show_controls(self):
        self._dock.show_many_controls(self._dock.many_scope.currentData() == "layer")
