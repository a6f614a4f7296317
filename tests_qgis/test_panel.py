"""The panel as its user sees it; offscreen, with a fake engine that answers with squares."""

import os
import signal

import pytest
from geosam_qgis.fields_window import FieldsWindow
from geosam_qgis.panel import Panel
from geosam_qgis.target import mapping_of
from qgis.core import (
    QgsContrastEnhancement,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsMultiBandColorRenderer,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsSingleBandGrayRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QEvent, Qt, QTimer
from qgis.PyQt.QtGui import QKeyEvent
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication
from user import IMAGE, LEFT, PLAIN, RIGHT, X, Y


def test_the_state_is_told(user):
    user.until(lambda: "self-test passed" in user.dock.engine_state.text())
    assert user.dock.engine_state.text() == "geosam fake · nano on CPU · self-test passed"
    user.until(lambda: "The rest" in user.dock.image_state.text())
    assert user.dock.image_state.text() == "0 of 20 tiles encoded. The rest takes 0:02 and 20 MB."


def test_hovering_shows_what_a_click_gives(user):
    user.move(X, Y)
    user.until(lambda: user.panel.outlines.shown("hover"))
    hovered = user.panel.outlines.shown("hover").asWkt(3)
    user.click()
    assert user.best.asWkt(3) == hovered
    assert user.panel.outlines.shown("hover") is None


def test_hovering_asks_one_at_a_time_and_ends_where_the_mouse_is(user):
    for step in range(100):
        user.move(X - 10 + step / 10, Y)
        QApplication.processEvents()
    user.until(lambda: user.panel.hovering._asked is None)
    shown = user.panel.outlines.shown("hover").centroid().asPoint()
    assert shown.x() == pytest.approx(X - 0.1, abs=0.1)
    heard = []
    user.panel.engine.ask("asked", {}, lambda answer: heard.extend(answer["asked"]))
    user.until(lambda: heard)
    assert 1 <= heard.count("preview") < 60


def test_nothing_is_drawn_when_the_mouse_has_left(user):
    user.move(X, Y)
    user.panel.tool.left.emit()
    QTest.qWait(200)
    assert user.panel.outlines.shown("hover") is None


def test_hovering_with_prompts_shows_what_one_more_click_would_give(user):
    user.click()
    user.move(X + 3, Y)
    user.until(lambda: user.panel.outlines.shown("hover"))
    assert len(user.outlining.draft) == 1


def test_clicks_boxes_and_taking_back(user):
    user.click()
    assert user.outlining.draft.is_lone_click and len(user.outlining.found) == 3
    user.click(X + 5, Y, RIGHT)
    assert [label for *_, label in user.outlining.draft.points] == [1, 0]
    user.drag(X - 4, Y - 3, X + 4, Y + 3)
    assert user.outlining.draft.box == pytest.approx((X - 4, Y - 3, X + 4, Y + 3), abs=0.1)
    assert user.best.area() == pytest.approx(48, abs=1)
    assert user.dock.prompts.count() == 3 and user.panel.outlines.shown("box")
    user.key(Qt.Key.Key_Backspace)
    user.settle()
    assert user.dock.prompts.count() == 2 and not user.panel.outlines.shown("box")
    user.key(Qt.Key.Key_Escape)
    assert user.outlining.best is None and user.panel.outlines.shown("draft") is None


def test_a_click_beside_alone_waits_for_one_on_the_object(user):
    user.click(button=RIGHT)
    assert user.outlining.best is None
    assert user.dock.object_state.text() == "Now click on the object."


def test_another_reading_can_be_chosen(user):
    user.click()
    assert user.dock.readings[0].text() == "1: 0.90" and user.dock.readings[0].isChecked()
    user.dock.readings[2].click()
    assert user.best.area() < 40
    user.click(X + 1, Y)  # no longer a lone click
    assert not user.dock.readings_row.isVisibleTo(user.dock)


def test_tiny_holes_are_filled_and_others_when_wished(user):
    user.click()
    assert user.best.area() == pytest.approx(100 - 4)  # the hole of one pixel is gone
    assert user.outlining.best["area_m2"] == pytest.approx(100 * 96 / 95.99, rel=1e-6)
    user.dock.holes.setValue(5)
    user.until(lambda: user.best.area() == pytest.approx(100))


def test_controls_draw_the_kept_masks_anew(user):
    user.click()
    user.dock.readings[1].click()
    user.dock.min_area.setValue(200)
    user.until(lambda: user.outlining.best is None)
    user.dock.min_area.setValue(0)
    user.until(lambda: user.outlining.best is not None)
    assert user.outlining.chosen == 1
    heard = []
    user.panel.engine.ask("asked", {}, lambda answer: heard.extend(answer["asked"]))
    user.until(lambda: heard)
    assert heard.count("segment") == 1 and heard.count("vectorize") == 2


def test_enter_saves_with_class_and_begins_anew(user):
    layer = user.target()
    user.click()
    user.dock.kind.setCurrentText("pond")
    user.key(Qt.Key.Key_Return)
    (feature,) = layer.getFeatures()
    assert feature["class"] == "pond" and feature["score"] == pytest.approx(0.9)
    assert len(user.outlining.draft) == 0 and user.dock.kind.findText("pond") >= 0
    layer.undoStack().undo()
    assert layer.featureCount() == 0


def test_enter_before_the_answer_saves_the_answer(user):
    layer = user.target()
    QTest.mouseClick(user.canvas.viewport(), LEFT, PLAIN, user.pixel(X, Y))
    assert user.outlining.is_waiting
    user.key(Qt.Key.Key_S)
    assert layer.featureCount() == 0
    user.until(lambda: layer.featureCount() == 1)


def test_the_draft_stays_when_it_cannot_be_saved(user):
    user.click()
    user.key(Qt.Key.Key_Return)  # no layer
    assert len(user.outlining.draft) == 1 and user.outlining.best
    layer = user.target("Polygon?crs=EPSG:32617&field=class:int")
    user.dock.kind.setCurrentText("tree")
    user.key(Qt.Key.Key_Return)
    assert layer.featureCount() == 0 and len(user.outlining.draft) == 1


def test_a_crash_loses_no_prompt_and_a_restart_goes_on(user):
    user.click()
    before = user.best.asWkt(3)
    os.kill(user.panel.engine.about["pid"], signal.SIGKILL)
    user.until(lambda: not user.panel.image.is_open)
    assert "stopped" in user.dock.engine_state.text()
    assert user.dock.engine_button.isVisibleTo(user.dock)
    user.click(X + 1, Y)  # still heard
    assert len(user.outlining.draft) == 2 and user.outlining.best is None
    user.dock.engine_button.click()
    user.until(lambda: user.outlining.best)
    assert user.best.asWkt(3) == before


def test_encoding_shows_progress_stops_and_goes_on(user):
    user.dock.encode.click()
    user.until(lambda: user.dock.progress.value() >= 3)
    assert user.dock.progress_row.isVisibleTo(user.dock) and "left" in user.dock.progress.format()
    user.dock.cancel.click()
    user.until(lambda: not user.panel.encoding.is_running)
    assert not user.dock.progress_row.isVisibleTo(user.dock)
    user.until(lambda: not user.dock.image_state.text().startswith("0 of"))
    assert user.panel.outlines.shown("ready")
    user.dock.encode.click()
    user.until(lambda: user.dock.progress.value() > 3)  # goes on where it stopped
    user.until(lambda: user.dock.image_state.text() == "20 of 20 tiles encoded")


def test_prompts_and_outlines_keep_their_place_when_the_map_changes_its_crs(user):
    user.click()
    user.drag(X - 4, Y - 3, X + 4, Y + 3)
    before = user.outlining.draft.request()
    user.canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
    user.canvas.setExtent(
        QgsCoordinateTransform(
            user.layer.crs(), QgsCoordinateReferenceSystem("EPSG:3857"), QgsProject.instance()
        ).transformBoundingBox(user.layer.extent())
    )
    assert user.outlining.draft.request() == before
    user.click(X + 2, Y + 2)  # joins the draft in the draft's CRS
    assert user.outlining.draft.points[-1][:2] == pytest.approx((X + 2, Y + 2), abs=0.15)
    user.key(Qt.Key.Key_Escape)
    user.click()
    assert user.outlining.draft.crs.authid() == "EPSG:3857"


def test_our_keys_are_ours_over_the_map_and_the_space_bar_is_not(user):
    for code, ours in (
        (Qt.Key.Key_S, True), (Qt.Key.Key_Return, True), (Qt.Key.Key_Backspace, True),
        (Qt.Key.Key_Escape, True), (Qt.Key.Key_Space, False), (Qt.Key.Key_Z, False),
    ):  # fmt: skip
        event = QKeyEvent(QEvent.Type.ShortcutOverride, code, PLAIN)
        event.ignore()
        QApplication.sendEvent(user.canvas, event)
        assert event.isAccepted() is ours, code
    save = QKeyEvent(
        QEvent.Type.ShortcutOverride, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier
    )
    save.ignore()
    QApplication.sendEvent(user.canvas, save)
    assert not save.isAccepted()


def test_taking_back_a_prompt_never_deletes_what_is_selected(user):
    """QGIS deletes the selection of the active layer after a Backspace that a tool accepts."""
    heard = []
    user.canvas.keyPressed.connect(lambda event: heard.append(event.isAccepted()))
    user.click()
    user.key(Qt.Key.Key_Backspace)
    assert len(user.outlining.draft) == 0 and True not in heard


def test_panning_with_space_makes_no_prompt(user):
    QTest.keyPress(user.canvas, Qt.Key.Key_Space)
    user.move(X, Y)
    user.move(X + 3, Y + 3)
    QTest.keyRelease(user.canvas, Qt.Key.Key_Space)
    assert len(user.outlining.draft) == 0


def test_another_tool_leaves_the_prompts(user):
    user.click()
    user.dock.point.setChecked(False)
    assert user.canvas.mapTool() is not user.panel.tool
    user.dock.point.setChecked(True)
    assert len(user.outlining.draft) == 1 and user.outlining.best


def test_no_engine_is_told(qtbot, qgis_iface, qgis_new_project):
    panel = Panel(qgis_iface, lambda: None)
    panel.start()
    assert panel.dock.engine_state.text() == "No engine found."
    assert panel.dock.engine_button.text() == "Look again"
    panel.close()


def test_a_layer_that_is_shown_in_another_crs_than_its_file_is_refused(user):
    moved = QgsRasterLayer(str(IMAGE), "moved")
    moved.setCrs(QgsCoordinateReferenceSystem("EPSG:32616"))
    QgsProject.instance().addMapLayer(moved)
    user.dock.raster.setLayer(moved)
    user.until(lambda: "EPSG:32616" in user.dock.image_state.text())
    assert not user.panel.image.is_open


def heard(user, op):
    """What the engine was asked of an operation."""
    asked = []
    user.panel.engine.ask("asked", {}, lambda answer: asked.extend(answer["given"]))
    user.until(lambda: asked)
    return [request for request in asked if request["op"] == op]


def test_the_engine_looks_at_the_bands_that_qgis_shows(user):
    user.click()
    data, opened = user.layer.dataProvider(), []
    user.panel.image.opened.connect(opened.append)
    user.layer.setRenderer(QgsMultiBandColorRenderer(data, 3, 2, 1))
    user.until(lambda: len(opened) == 1)
    user.settle()
    assert user.outlining.best and len(user.outlining.draft) == 1  # asked about again
    same = QgsMultiBandColorRenderer(data, 3, 2, 1)
    same.setRedContrastEnhancement(QgsContrastEnhancement(data.dataType(1)))
    user.layer.setRenderer(same)  # other colours, the same bands
    user.layer.setRenderer(QgsSingleBandGrayRenderer(data, 2))
    user.until(lambda: len(opened) == 2)
    user.layer.setRenderer(QgsMultiBandColorRenderer(data, 3, -1, 1))
    user.until(lambda: "two bands" in user.dock.image_state.text())
    assert not user.panel.image.is_open
    user.layer.setRenderer(QgsMultiBandColorRenderer(data, 1, 2, 3))
    user.until(lambda: user.panel.image.is_open)
    asked = [request["bands"] for request in heard(user, "open")]
    assert asked[-4:] == [[1, 2, 3], [3, 2, 1], [2], [1, 2, 3]]
    user.dock.raster.setLayer(None)
    user.layer.setRenderer(QgsSingleBandGrayRenderer(data, 2))
    assert not user.panel.image.is_open and len(heard(user, "open")) == len(asked)


def test_selected_polygons_are_encoded_in_the_maps_crs(user):
    words = []
    user.panel._iface.messageBar().pushMessage = lambda *given: words.append(given[1])
    user.dock.scope.setCurrentIndex(user.dock.scope.findData("selection"))
    user.dock.encode.click()
    assert "Select polygons in the active layer" in words[0] and not user.panel.encoding.is_running
    places = QgsVectorLayer("Polygon?crs=EPSG:32617", "places", "memory")
    for shift in (0, 20, 40):
        feature = QgsFeature()
        feature.setGeometry(QgsGeometry.fromWkt(f"POINT({X + shift} {Y})").buffer(2, 1))
        places.dataProvider().addFeature(feature)
    QgsProject.instance().addMapLayer(places)
    places.select([1, 3])
    user.panel._iface.setActiveLayer(places)
    web = QgsCoordinateReferenceSystem("EPSG:3857")
    user.canvas.setDestinationCrs(web)
    user.dock.encode.click()
    user.until(lambda: not user.panel.encoding.is_running)
    (request,) = heard(user, "encode")
    assert request["crs"] == "EPSG:3857"
    first, second = request["area"]["coordinates"]
    there = QgsCoordinateTransform(places.crs(), web, QgsProject.instance())
    for (ring,), shift in zip((first, second), (0, 40)):
        centre = QgsGeometry.fromMultiPolygonXY([[[QgsPointXY(x, y) for x, y in ring]]]).centroid()
        assert centre.asPoint().distance(there.transform(QgsPointXY(X + shift, Y))) < 0.01


def test_the_fields_window_says_which_field_takes_what(user):
    layer = user.target("MultiPolygon?crs=EPSG:32617&field=kind:string&field=sure:double")
    window = FieldsWindow(layer, user.dock)
    assert window.boxes["class"].currentField() == ""
    window.boxes["class"].setField("kind")
    window.boxes["score"].setField("sure")
    window.reject()
    assert mapping_of(layer) == {}
    window.accept()
    assert mapping_of(layer) == {"class": "kind", "score": "sure"}
    user.click()
    user.dock.kind.setCurrentText("pond")
    user.key(Qt.Key.Key_Return)
    (feature,) = layer.getFeatures()
    assert (feature["kind"], feature["sure"]) == ("pond", pytest.approx(0.9))
    again = FieldsWindow(layer, user.dock)
    assert again.boxes["class"].currentField() == "kind"
    again.boxes["score"].setField("")
    again.accept()
    assert mapping_of(layer) == {"class": "kind"}


def test_the_fields_window_opens_from_the_panel_and_keeps_what_is_accepted(user):
    layer = user.target("MultiPolygon?crs=EPSG:32617&field=kind:string")
    seen = []

    def fill():
        window = QApplication.activeModalWidget()
        seen.append(window.windowTitle())
        window.boxes["class"].setField("kind")
        window.accept()

    QTimer.singleShot(0, fill)
    user.dock.fields.click()
    assert seen == ["Fields of target"] and mapping_of(layer) == {"class": "kind"}


def test_a_raster_that_is_removed_makes_room_for_the_one_that_the_panel_shows(user):
    other = QgsRasterLayer(str(IMAGE), "another")
    QgsProject.instance().addMapLayer(other)
    opened = []
    user.panel.image.opened.connect(opened.append)
    QgsProject.instance().removeMapLayer(user.layer.id())
    assert user.dock.raster.currentLayer() in (other, None)
    user.until(lambda: bool(opened) or user.dock.raster.currentLayer() is None)
    assert user.panel.image.is_open is (user.dock.raster.currentLayer() is other)
