"""What the panel's menu does about the engine: install it, choose it, report on it."""

from qgis.core import Qgis, QgsSettings
from qgis.PyQt.QtWidgets import QFileDialog, QPushButton

from .discovery import SETTING, VARIABLE, find_engine
from .install_window import InstallWindow
from .report import ReportWindow
from .words import tr


class EngineMenu:
    """Entries in the panel's menu; windows that are opened from it."""

    def __init__(self, panel, iface):
        self._panel = panel
        self._iface = iface
        menu = panel.dock.engine_menu
        for text, do in (
            (tr("Install the engine..."), self.install),
            (tr("Choose the engine's program..."), self.choose),
            (tr("Report to copy..."), self.report),
        ):
            menu.addAction(text).triggered.connect(lambda _on, do=do: do())

    def offer(self):
        """There is no engine: say so where it is seen, with a button that installs it."""
        bar = self._iface.messageBar()
        note = bar.createMessage("geosam", tr("The engine is not installed yet."))
        button = QPushButton(tr("Install..."))
        button.clicked.connect(lambda: (bar.popWidget(note), self.install()))
        note.layout().addWidget(button)
        bar.pushWidget(note, Qgis.MessageLevel.Info)

    def install(self):
        """Open the window that installs the engine; the panel starts what it installed."""
        window = InstallWindow(self._iface.mainWindow())
        window.installed.connect(self._start_installed)
        window.open()
        return window

    def choose(self):
        """Ask for the path of a geosam that is there already."""
        path, _kind = QFileDialog.getOpenFileName(
            self._iface.mainWindow(),
            tr("The program geosam, in the environment it is installed in"),
        )
        if path:
            QgsSettings().setValue(SETTING, path)
            self._panel.start()

    def report(self):
        """Open the report."""
        window = ReportWindow(self._panel.engine, self._iface.mainWindow())
        window.open()
        return window

    def _start_installed(self):
        QgsSettings().remove(SETTING)  # else it would hide what was installed
        self._panel.start()
        found = find_engine()
        if found.how == "variable":
            self._iface.messageBar().pushMessage(
                "geosam",
                tr("The variable {} says {}: that engine is used.").format(
                    VARIABLE, " ".join(found.command)
                ),
                Qgis.MessageLevel.Warning,
            )
