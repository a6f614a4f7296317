"""The mouse and the keys over the map, as what the user means by them. Changes no layer itself."""

from qgis.core import QgsPointXY, QgsRectangle
from qgis.gui import QgsMapTool
from qgis.PyQt.QtCore import QEvent, Qt, pyqtSignal

DRAG_PX = 6  # shorter movements are clicks

KEYS = {
    Qt.Key.Key_Return: "save",
    Qt.Key.Key_Enter: "save",
    Qt.Key.Key_S: "save",
    Qt.Key.Key_Backspace: "take_back",
    Qt.Key.Key_Escape: "clear",
}


class PromptTool(QgsMapTool):
    """Left click adds, right click takes away, drag makes a box; Space-pan and wheel stay QGIS's.

    Signals, in the canvas's coordinates:
        clicked: x, y and the label, 1 on the object and 0 beside it.
        boxed: the box, when the button is let go.
        dragged: the box while it is drawn, or None.
        hovered: x, y under the mouse.
        entered, left: the mouse comes to the map, or leaves it.
        wanted: "save", "take_back" or "clear".
    """

    clicked = pyqtSignal(float, float, int)
    boxed = pyqtSignal(QgsRectangle)
    dragged = pyqtSignal(object)
    hovered = pyqtSignal(float, float)
    entered = pyqtSignal()
    left = pyqtSignal()
    wanted = pyqtSignal(str)

    def __init__(self, canvas):
        super().__init__(canvas)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self._pressed = None  # where the left button went down: map point and pixel

    def activate(self):
        super().activate()
        self.canvas().installEventFilter(self)
        self.canvas().viewport().installEventFilter(self)

    def deactivate(self):
        self.canvas().removeEventFilter(self)
        self.canvas().viewport().removeEventFilter(self)
        self._pressed = None
        self.dragged.emit(None)
        self.left.emit()
        super().deactivate()

    def canvasPressEvent(self, event):
        if event.button() == Qt.MouseButton.LeftButton:
            self._pressed = (QgsPointXY(event.mapPoint()), event.originalPixelPoint())

    def canvasMoveEvent(self, event):
        point = QgsPointXY(event.mapPoint())
        if self._pressed is None:
            self.hovered.emit(point.x(), point.y())
        elif self._is_drag(event):
            self.dragged.emit(QgsRectangle(self._pressed[0], point))

    def canvasReleaseEvent(self, event):
        point = QgsPointXY(event.mapPoint())
        if event.button() == Qt.MouseButton.RightButton:
            self.clicked.emit(point.x(), point.y(), 0)
        elif event.button() == Qt.MouseButton.LeftButton and self._pressed is not None:
            start, drag = self._pressed[0], self._is_drag(event)
            self._pressed = None
            self.dragged.emit(None)
            if drag:
                self.boxed.emit(QgsRectangle(start, point))
            else:
                self.clicked.emit(point.x(), point.y(), 1)

    def keyPressEvent(self, event):
        """Do what a key of ours means.

        The event is left as not accepted, as QGIS's own tools do: after an accepted Backspace QGIS
        deletes what is selected in the active layer.
        """
        event.ignore()
        wish = self._wish(event)
        if wish:
            self.wanted.emit(wish)

    def eventFilter(self, watched, event):
        """Keep QGIS's shortcuts from taking our keys, and notice the mouse's coming and going."""
        if event.type() == QEvent.Type.ShortcutOverride and self._wish(event):
            event.accept()
            return True
        if event.type() == QEvent.Type.Enter:
            self.entered.emit()
        elif event.type() == QEvent.Type.Leave:
            self.left.emit()
        return False

    def _is_drag(self, event):
        way = event.originalPixelPoint() - self._pressed[1]
        return max(abs(way.x()), abs(way.y())) >= DRAG_PX

    @staticmethod
    def _wish(event):
        if (
            event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
            != Qt.KeyboardModifier.NoModifier
        ):
            return None
        return KEYS.get(event.key())
