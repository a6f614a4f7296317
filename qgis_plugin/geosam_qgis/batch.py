"""Many objects at once: those of many prompts, or all that there are."""

import time
from collections import namedtuple
from itertools import islice

from qgis.PyQt.QtCore import QObject, pyqtSignal

from .slices import Slices
from .words import tr

CHUNK = 50  # prompts a request
ONE_BY_ONE = ("PromptError", "ProjectionError", "ProtocolError")  # one prompt may be to blame


class Found(namedtuple("Found", "name prompt polygon why")):
    """What came of a prompt, or one of all objects.

    Attributes:
        name: the prompt's id, or None.
        prompt: as the engine was asked, or None.
        polygon: as the protocol has it, with a QgsGeometry; None if the engine gave none.
        why: why there is no outline, or an empty text.
    """


class Batch(QObject):
    """Asks the engine for many objects in a lane beside that of clicks and the mouse.

    It opens the raster for itself, so that another may be chosen in the panel meanwhile.

    Signals:
        progressed: how many are done, how many there are, and the seconds left or None.
        ended: a list of Found, one a prompt in their order, or one an object.
        failed: nothing came of it; why, or an empty text if it was cancelled.
    """

    progressed = pyqtSignal(int, int, object)
    ended = pyqtSignal(list)
    failed = pyqtSignal(str)

    def __init__(self, image):
        super().__init__(image)
        self._image = image
        self._slices = Slices(self)
        self._engine = None
        self._scene = None
        self._number = None
        self._asked = None  # this run; answers to others are dropped
        self._prompts, self._again = iter(()), []  # to be asked about; one by one
        self._found = []

    @property
    def is_running(self):
        """Whether it is at work."""
        return self._asked is not None

    def outline(self, prompts, total, crs, shape):
        """Outline the object of each prompt.

        Args:
            prompts: an iterator of (id, prompt, why), see `layer_prompts`.
            total: about how many there are.
            crs: of the prompts, as the engine takes it.
            shape: how outlines are to be drawn.
        """
        self._begin(shape)
        self._prompts, self._total, self._crs, self._again = prompts, total, crs, []
        self._open(self._next_chunk)

    def everything(self, area, max_area_m2, shape, coverage):
        """Outline every object.

        Args:
            area: GeoJSON and its CRS as parameters of a request; none: in the whole raster.
            max_area_m2: larger objects are left out, or None.
            shape: how outlines are to be drawn, but for `simplify_m`.
            coverage: whether all ground is shared out; outlines are then left as they come.
        """
        if coverage:
            shape = shape._replace(holes_m2=0.0, square=False)
        self._begin(shape)
        given = {
            **area, "coverage": coverage, "min_area_m2": shape.min_area_m2,
            "max_area_m2": max_area_m2,
        }  # fmt: skip
        asked = self._asked
        self._open(
            lambda: self._ask(
                "everything", given,
                lambda _answer: self._slices.then(self._end),
                self._tell_of,
                lambda rows: self._draw(asked, [(None, None, row) for row in rows]),
            )
        )  # fmt: skip

    def cancel(self):
        """Stop; nothing comes of it."""
        if self.is_running:
            if self._number is not None:
                self._engine.cancel(self._number)
            self._close("")

    # The run

    def _begin(self, shape):
        self._asked, self._engine = object(), self._image.engine
        self._shape, self._pixel_m2 = shape, self._image.pixel_m2
        self._scene = self._number = None
        self._found, self._done, self._began_s = [], 0, time.monotonic()
        self.progressed.emit(0, 0, None)

    def _open(self, go_on):
        asked = self._asked

        def opened(answer):
            if asked is self._asked:
                self._scene = answer["scene"]
                go_on()
            else:
                self._engine.ask("close", {"scene": answer["scene"]})

        self._engine.ask("open", self._image.request, opened, self._refused_by(asked))

    def _ask(self, op, given, done, progress=None, found=None, failed=None):
        asked = self._asked
        self._number = self._engine.ask(
            op, {"scene": self._scene, **given},
            lambda answer: done(answer) if asked is self._asked else None,
            failed or self._refused_by(asked),
            lambda *how: progress(*how) if asked is self._asked else None,
            found,
        )  # fmt: skip

    def _refused_by(self, asked):
        return lambda kind, message: self._refuse(asked, kind, message)

    def _refuse(self, asked, kind, message):
        if asked is self._asked:
            self._close(tr("The engine stopped.") if kind == "EngineGone" else message)

    def _tell_of(self, done, total, left_s):
        self.progressed.emit(done, total, left_s)

    def _next_chunk(self):
        """Ask about the next prompts; those that were refused together are asked one by one."""
        chunk = [self._again.pop(0)] if self._again else list(islice(self._prompts, CHUNK))
        if not chunk:
            self._slices.then(self._end)
            return
        asked = self._asked
        fit = [(name, prompt) for name, prompt, _ in chunk if prompt is not None]

        def answered(answer):
            rows = iter(answer["polygons"])
            self._draw(
                asked,
                [(name, prompt, next(rows) if prompt else why) for name, prompt, why in chunk],
            )
            self._count(len(chunk), 1, 1)
            self._done += len(chunk)
            self._slices.then(self._next_chunk)

        def refused(kind, message):
            if asked is not self._asked:
                return
            if kind not in ONE_BY_ONE:
                self._refuse(asked, kind, message)
            elif len(chunk) > 1:
                self._again = chunk
                self._next_chunk()
            else:
                answered({"polygons": [message]})

        if not fit:
            answered({"polygons": []})
            return
        given = {"prompts": [prompt for _, prompt in fit], "crs": self._crs}
        self._ask(
            "batch", {**given, **self._shape.wishes()}, answered,
            lambda done, total, _left_s: self._count(len(chunk), done, total), failed=refused,
        )  # fmt: skip

    def _count(self, size, done, total):
        """Tell how far the run is, of which `done` of `total` steps of a chunk are done."""
        so_far = self._done + size * done / max(total, 1)
        rest = max(self._total - so_far, 0)
        left_s = (time.monotonic() - self._began_s) / so_far * rest if so_far else None
        self.progressed.emit(int(so_far), max(self._total, int(so_far)), left_s)

    def _draw(self, asked, answers):
        """Finish outlines as the panel's controls say; an answer is a polygon or why it is none."""

        def steps():
            for name, prompt, answer in answers:
                if isinstance(answer, str):
                    self._found.append(Found(name, prompt, None, answer))
                else:
                    polygon = self._shape.drawn(answer, self._pixel_m2)
                    self._found.append(Found(name, prompt, polygon, _lack(polygon)))
                yield

        if asked is self._asked:
            self._slices.add(steps(), failed=self._broke)

    def _broke(self, error):
        self._close(str(error))
        raise error

    def _end(self):
        found = self._found
        self._close(None)
        self.ended.emit(found)

    def _close(self, why):
        """The run is over; `why` it failed, or None."""
        self._slices.stop()
        self._asked = self._number = None
        if self._scene is not None and self._engine.is_running:
            self._engine.ask("close", {"scene": self._scene})
        self._scene, self._found = None, []
        if why is not None:
            self.failed.emit(why)


def _lack(polygon):
    if polygon["geometry"] is not None:
        return ""
    return tr("outside the raster") if polygon["status"] == "outside" else tr("nothing found")
