"""The plugin as QGIS sees it: an entry in the menu and a panel that is made when it is wanted."""

import os

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication, Qt, QTranslator
from qgis.PyQt.QtGui import QIcon

from .compat import QAction
from .words import tr

FOLDER = os.path.dirname(__file__)
ICON = os.path.join(FOLDER, "icons", "geosam.svg")
MENU = "geosam"


class GeosamPlugin:
    """Loaded by QGIS; nothing heavy happens before the panel is opened."""

    def __init__(self, iface):
        self._iface = iface
        self._action = None
        self._provider = None
        self._translator = _translator()
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
        if self._translator is not None:
            QCoreApplication.removeTranslator(self._translator)
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


def _translator():
    """The user's language, from i18n/geosam_LANGUAGE.qm; None where there is none."""
    language = QgsApplication.locale()
    for name in (language, language.split("_")[0]):
        path = os.path.join(FOLDER, "i18n", f"geosam_{name}.qm")
        if os.path.exists(path):
            translator = QTranslator()
            translator.load(path)
            QCoreApplication.installTranslator(translator)
            return translator
    return None
