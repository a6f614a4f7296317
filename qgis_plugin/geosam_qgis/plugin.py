"""The plugin as QGIS sees it: an entry in the menu and a panel that is made when it is wanted."""

import os

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QIcon

from .compat import QAction
from .words import tr

ICON = os.path.join(os.path.dirname(__file__), "icons", "geosam.svg")
MENU = "geosam"


class GeosamPlugin:
    """Loaded by QGIS; nothing heavy happens before the panel is opened."""

    def __init__(self, iface):
        self._iface = iface
        self._action = None
        self._provider = None
        self.panel = None
        self.engine_menu = None

    def initProcessing(self):
        """Called without a window too, by qgis_process."""
        from .processing.provider import GeosamProvider

        self._provider = GeosamProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self):
        self.initProcessing()
        self._action = QAction(QIcon(ICON), "geosam", self._iface.mainWindow())
        self._action.setCheckable(True)
        self._action.setToolTip(tr("Outline objects of a raster by clicks and boxes"))
        self._action.toggled.connect(self._toggle)
        self._iface.addPluginToRasterMenu(MENU, self._action)
        self._iface.addRasterToolBarIcon(self._action)

    def unload(self):
        QgsApplication.processingRegistry().removeProvider(self._provider)
        self._iface.removePluginRasterMenu(MENU, self._action)
        self._iface.removeRasterToolBarIcon(self._action)
        if self.panel is not None:
            self.panel.close()
            self._iface.removeDockWidget(self.panel.dock)
            self.panel.dock.deleteLater()
            self.panel = self.engine_menu = None

    def _toggle(self, on):
        if on and self.panel is None:
            self._make()
        if self.panel is not None:
            self.panel.dock.setUserVisible(on)

    def _make(self):
        from .discovery import engine_command
        from .dock import WIDTH_PX
        from .engine_menu import EngineMenu
        from .panel import Panel

        self.panel = Panel(self._iface, engine_command)
        self._iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self.panel.dock)
        self._iface.mainWindow().resizeDocks(
            [self.panel.dock], [WIDTH_PX], Qt.Orientation.Horizontal
        )
        self.panel.dock.closed.connect(lambda: self._action.setChecked(False))
        self.engine_menu = EngineMenu(self.panel, self._iface)
        self.panel.start()
        if engine_command() is None:
            self.engine_menu.offer()
