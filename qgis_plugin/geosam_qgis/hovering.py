"""The outline under the mouse: the very polygon that a click there would give."""

from qgis.PyQt.QtCore import QObject, pyqtSignal

from .image import crs_name


class Hovering(QObject):
    """Asks for the polygon under the mouse: one question under way, the newest next, no queue.

    Signals:
        shown: an outline was drawn, or hidden.
        unready: the place under the mouse is not encoded.
    """

    shown = pyqtSignal()
    unready = pyqtSignal()

    def __init__(self, image, outlines, prompts, shape):
        """`prompts(x, y)` gives the draft that a click would make; `shape()` how to draw it."""
        super().__init__(image)
        self._image = image
        self._outlines = outlines
        self._prompts = prompts
        self._shape = shape
        self._asked = None  # the question under way; answers to older ones are dropped
        self._next = None  # where the mouse is by now
        image.shut.connect(lambda _why: self.stop())

    def move(self, x, y):
        """The mouse is here, in the map's coordinates."""
        self._next = (x, y)
        if self._asked is None and self._image.is_open:
            self._ask()

    def stop(self):
        """The mouse is away; hide the outline, whatever still comes in."""
        self._next = self._asked = None
        self._outlines.hover(None)

    def _ask(self):
        (x, y), self._next = self._next, None
        draft, shape = self._prompts(x, y), self._shape()
        asked = self._asked = object()
        given = {
            "prompt": draft.request("hover"), "crs": crs_name(draft.crs),
            "encode": self._image.quick, **shape.wishes(),
        }  # fmt: skip
        self._image.ask(
            "preview", given,
            lambda answer: self._take(asked, answer, shape),
            lambda _kind, _message: self._take(asked, None, shape),
        )  # fmt: skip

    def _take(self, asked, answer, shape):
        if asked is not self._asked:
            return
        self._asked = None
        if self._next is not None and self._image.is_open:
            self._ask()
        rows = answer["polygons"] if answer else []
        geometry = shape.drawn(rows[0], self._image.pixel_m2)["geometry"] if rows else None
        self._outlines.hover(geometry, self._image.crs)
        self.shown.emit()
        if answer and not answer["encoded"]:
            self.unready.emit()
