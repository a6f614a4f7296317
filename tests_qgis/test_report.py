"""The report that someone copies; offscreen, with a fake engine."""

import os
import sys
from pathlib import Path

from geosam_qgis.engine import Engine
from geosam_qgis.report import ReportWindow, report
from qgis.core import Qgis
from qgis.PyQt.QtWidgets import QApplication, QPushButton

FAKE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]


def test_it_says_what_is_there_and_copies_it(qtbot, monkeypatch):
    monkeypatch.setenv("GEOSAM_ENGINE", os.path.expanduser("~/my/geosam") + " --loud")
    engine = Engine(FAKE)
    with qtbot.waitSignal(engine.ready, timeout=5000):
        engine.start()
    window = ReportWindow(engine)
    qtbot.addWidget(window)
    assert "no answer yet" in window.text()
    qtbot.waitUntil(lambda: '"iou": 0.98' in window.text(), timeout=5000)
    (copy,) = (b for b in window.findChildren(QPushButton) if b.text() == "Copy")
    copy.click()
    text = QApplication.clipboard().text()
    engine.close()
    assert "QGIS: " + Qgis.QGIS_VERSION in text
    assert "geosam plugin: 0.1.0" in text
    assert "Engine: ~/my/geosam --loud (variable)" in text  # no user's name
    assert '"version": "fake"' in text and "a line of the log" in text


def test_without_an_engine_it_says_so(qgis_app, monkeypatch):
    monkeypatch.delenv("GEOSAM_ENGINE", raising=False)
    monkeypatch.setattr("geosam_qgis.discovery.COMMAND", "no-such-geosam")
    text = report(None, "not run")
    assert "Engine: none found" in text and "Hello: not running" in text
