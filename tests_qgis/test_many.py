"""Many objects at once from the panel; offscreen, with a fake engine that answers with squares."""

import json
import os
import signal
import time

import pytest
from geosam_qgis.layer_prompts import prompts_of
from geosam_qgis.slices import Slices
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QTimer
from qgis.PyQt.QtTest import QTest
from user import X, Y

FIELDS = (
    "MultiPolygon?crs=EPSG:32617&field=class:string&field=prompt_id:string&field=status:string"
    "&field=prompts:string&field=source:string"
)
ROOF = f"POLYGON(({X} {Y},{X + 4} {Y + 1},{X + 3} {Y + 5},{X} {Y}))"


def layer_of(kind, geometries, crs="EPSG:32617"):
    layer = QgsVectorLayer(f"{kind}?crs={crs}&field=name:string", "prompts", "memory")
    features = []
    for geometry in geometries:
        feature = QgsFeature(layer.fields())
        feature.setGeometry(geometry)
        features.append(feature)
    layer.dataProvider().addFeatures(features)
    QgsProject.instance().addMapLayer(layer)
    return layer


def points(count, step=0.2):
    return [QgsGeometry.fromPointXY(QgsPointXY(X + step * n, Y)) for n in range(count)]


def outline_features(user, layer, selected=False):
    dock = user.dock
    dock.many_scope.setCurrentIndex(dock.many_scope.findData("layer"))
    dock.prompts_layer.setLayer(layer)
    dock.selected.setChecked(selected)
    dock.many_start.click()


def outline_everything(user, scope, count=0, coverage=False):
    dock = user.dock
    dock.many_scope.setCurrentIndex(dock.many_scope.findData(scope))
    dock.max_area.setValue(count)
    dock.coverage.setChecked(coverage)
    dock.many_start.click()


def end(user):
    user.until(lambda: not user.panel.many.is_running)
    assert user.dock.many_start.isEnabled() and not user.dock.many_progress_row.isVisibleTo(
        user.dock
    )
    return user.dock.many_state.text()


def requests(user, op):
    heard = []
    user.panel.engine.ask("asked", {}, lambda answer: heard.extend(answer["given"]))
    user.until(lambda: heard)
    return [request for request in heard if request["op"] == op]


def test_each_feature_of_a_layer_is_outlined_and_one_undo_takes_all_back(user):
    target, layer = user.target(FIELDS), layer_of("Point", points(120))
    user.dock.kind.setCurrentText("tree")
    outline_features(user, layer)
    user.dock.kind.setCurrentText("other")  # too late
    assert end(user) == "120 of 120 saved. Ctrl+Z takes them all back."
    saved = list(target.getFeatures())
    ids = [str(feature.id()) for feature in layer.getFeatures()]
    assert [feature["prompt_id"] for feature in saved] == ids
    assert {feature["class"] for feature in saved} == {"tree"}
    assert {feature["source"] for feature in saved} == {"OSBS_029.tif"}
    for feature, geometry in zip(saved, points(120)):
        assert feature.geometry().centroid().distance(geometry) < 0.09  # it has a hole
    asked = json.loads(saved[7]["prompts"])
    assert asked == {"id": ids[7], "points": [[X + 7 * 0.2, Y]], "crs": "EPSG:32617"}
    assert [len(request["prompts"]) for request in requests(user, "batch")] == [50, 50, 20]
    assert user.panel._iface.activeLayer() is target
    assert target.undoStack().count() == 1
    target.undoStack().undo()
    assert target.featureCount() == 0
    target.undoStack().redo()
    assert target.featureCount() == 120


def test_each_prompt_has_its_answer_and_those_without_outline_are_listed(user):
    target = user.target(FIELDS)
    far = QgsGeometry.fromPointXY(QgsPointXY(406000, Y))
    layer = layer_of("Point", [*points(3), far, QgsGeometry(), *points(2)])
    outline_features(user, layer)
    ids = [feature.id() for feature in layer.getFeatures()]
    assert end(user) == (
        "5 of 7 saved. Ctrl+Z takes them all back. Not saved: "
        f"{ids[3]}: outside the raster; {ids[4]}: no point and no polygon"
    )
    assert target.featureCount() == 5


def test_a_prompt_that_is_refused_costs_no_other(user):
    """The fake engine refuses outlines as prompts."""
    target = user.target(FIELDS)
    box = QgsGeometry.fromWkt(f"POLYGON(({X} {Y},{X + 4} {Y},{X + 4} {Y + 5},{X} {Y + 5},{X} {Y}))")
    layer = layer_of("Polygon", [box, QgsGeometry.fromWkt(ROOF), box])
    outline_features(user, layer)
    assert "2 of 3 saved." in end(user) and "2: Prompt: no mask." in user.dock.many_state.text()
    first, last = target.getFeatures()
    assert (first["prompt_id"], last["prompt_id"]) == ("1", "3")
    assert first.geometry().area() == pytest.approx(20)
    assert [len(request["prompts"]) for request in requests(user, "batch")] == [3, 1, 1, 1]


def test_only_selected_features_and_prompts_in_another_crs(user):
    target = user.target(FIELDS)
    degrees = QgsCoordinateReferenceSystem("EPSG:4326")
    there = QgsCoordinateTransform(target.crs(), degrees, QgsProject.instance())
    moved = [QgsGeometry.fromPointXY(there.transform(g.asPoint())) for g in points(3)]
    layer = layer_of("Point", moved, "EPSG:4326")
    layer.select([2, 3])
    outline_features(user, layer, selected=True)
    user.until(lambda: not user.panel.many.is_running)
    (request,) = requests(user, "batch")
    assert request["crs"] == "EPSG:4326"
    asked = {prompt["id"]: prompt["points"][0] for prompt in request["prompts"]}
    assert set(asked) == {"2", "3"}
    assert asked["2"] == pytest.approx(list(moved[1].asPoint()), abs=1e-9)


def test_what_a_feature_asks_for():
    multi = QgsGeometry.fromWkt("MULTIPOINT((1 2),(3 4))")
    box = QgsGeometry.fromWkt("MULTIPOLYGON(((1 2,1 5,4 5,4 2,1 2)))")
    hole = QgsGeometry.fromWkt("POLYGON((0 0,9 0,9 9,0 9,0 0),(1 1,2 1,2 2,1 1))")
    curve = QgsGeometry.fromWkt("CURVEPOLYGON(CIRCULARSTRING(0 0,1 1,2 0,1 -1,0 0))")
    high = QgsGeometry.fromWkt("POLYGON Z((0 0 7,3 0 7,0 3 7,0 0 7))")
    asked = {}
    for kind, geometries in (
        ("MultiPoint", [multi]), ("MultiPolygon", [box, hole]), ("CurvePolygon", [curve]),
        ("PolygonZ", [high]), ("LineString", [QgsGeometry.fromWkt("LINESTRING(0 0,1 1)")]),
    ):  # fmt: skip
        asked[kind] = list(prompts_of(layer_of(kind, geometries), only_selected=False))
    assert asked["MultiPoint"] == [("1", {"id": "1", "points": [[1, 2], [3, 4]]}, "")]
    (_, boxed, _), (_, holed, _) = asked["MultiPolygon"]
    assert boxed == {"id": "1", "box": [1, 2, 4, 5]}
    assert [len(ring) for ring in holed["mask"]["coordinates"][0]] == [5, 4]
    assert len(asked["CurvePolygon"][0][1]["mask"]["coordinates"][0][0]) > 20
    assert asked["PolygonZ"][0][1]["mask"]["coordinates"] == [[[[0, 0], [3, 0], [0, 3], [0, 0]]]]
    assert asked["LineString"] == [("1", None, "no point and no polygon")]


def test_everything_in_the_view_the_raster_or_selected_polygons(user):
    target = user.target(FIELDS)
    outline_everything(user, "view", coverage=True)
    assert "3 of 3 saved." in end(user)
    for feature in target.getFeatures():
        assert feature["class"] == "object" and feature["status"] == "ok"
        assert not feature["prompt_id"] and not feature["prompts"]
    assert target.undoStack().count() == 1
    outline_everything(user, "whole", 7)
    assert "7 of 7 saved." in end(user)
    places = layer_of("Polygon", [QgsGeometry.fromWkt(ROOF)])
    places.selectAll()
    user.panel._iface.setActiveLayer(places)
    user.dock.min_area.setValue(2)
    outline_everything(user, "selection", 1)
    end(user)
    view, whole, selection = requests(user, "everything")
    assert view["crs"] == "EPSG:32617" and view["coverage"] and view["max_area_m2"] is None
    (ring,) = view["area"]["coordinates"][0]
    assert min(x for x, _ in ring) == pytest.approx(
        user.canvas.mapSettings().visibleExtent().xMinimum()
    )
    assert "area" not in whole and whole["max_area_m2"] == 7 and not whole["coverage"]
    assert selection["area"]["coordinates"][0][0][0] == [X, Y]
    assert selection["min_area_m2"] == 2


def test_outlines_of_shared_ground_are_saved_as_they_come(user):
    target = user.target(FIELDS)
    outline_everything(user, "view", 1)
    end(user)
    outline_everything(user, "view", 1, coverage=True)
    end(user)
    filled, kept = target.getFeatures()
    assert filled.geometry().area() == pytest.approx(96)  # the tiny hole is filled
    assert kept.geometry().area() == pytest.approx(95.99)


def test_the_window_goes_on_while_thousands_of_outlines_come(user):
    target = user.target(FIELDS)
    stretches, last = [], [time.thread_time()]

    def tick():
        now = time.thread_time()
        stretches.append(now - last[0])
        last[0] = now

    timer = QTimer()
    timer.timeout.connect(tick)
    outline_everything(user, "view", 3000)
    timer.start(0)
    end(user)
    timer.stop()
    assert target.featureCount() == 3000 and target.undoStack().count() == 1
    assert len(stretches) > 50 and sorted(stretches)[-3] < 0.05  # but for collected garbage


def test_cancelling_saves_nothing_and_can_be_followed_by_another_run(user):
    target, layer = user.target(FIELDS), layer_of("Point", points(400))
    outline_features(user, layer)
    user.until(lambda: user.dock.many_progress.value() >= 50)
    assert user.dock.many_progress.maximum() == 400 and not user.dock.many_start.isEnabled()
    assert "left" in user.dock.many_progress.format()
    user.dock.many_cancel.click()
    assert end(user) == "Cancelled, nothing saved."
    outline_everything(user, "view", 5)
    user.until(lambda: user.dock.many_progress.value() >= 3)
    user.dock.many_cancel.click()
    assert end(user) == "Cancelled, nothing saved."
    outline_everything(user, "view", 5)
    end(user)
    assert target.featureCount() == 5
    assert len(requests(user, "cancel")) == 2


def test_cancelling_while_saving_leaves_the_layer_as_it_was(user, monkeypatch):
    target, seen = user.target(FIELDS), []

    def cancel():
        seen.append(target.featureCount())
        user.panel.save()  # which would end up in the same step
        user.dock.many_cancel.click()

    user.click()
    said = []
    user.panel._warn = said.append

    def note(_number):
        if target.featureCount() == 10:
            QTimer.singleShot(0, cancel)

    monkeypatch.setattr("geosam_qgis.slices.SLICE_S", 1e-6)
    target.featureAdded.connect(note)
    outline_everything(user, "view", 100)
    user.until(lambda: seen)
    assert 10 <= seen[0] < 100
    assert "Many outlines are being saved" in said[0] and user.outlining.best
    assert target.featureCount() == 0 and end(user) == "Cancelled, nothing saved."
    target.undoStack().undo()
    assert target.featureCount() == 0


def test_a_panel_that_is_closed_ends_what_it_began(user):
    target = user.target(FIELDS)
    outline_everything(user, "view", 50)
    user.until(lambda: user.dock.many_progress.value() >= 2)
    user.panel.close()
    user.panel.close = lambda: None
    assert not user.panel.many.is_running and target.featureCount() == 0


def test_a_killed_engine_saves_nothing_and_says_so(user):
    target = user.target(FIELDS)
    outline_everything(user, "view", 5)
    os.kill(user.panel.engine.about["pid"], signal.SIGKILL)
    assert end(user) == "The engine stopped. Nothing was saved."
    assert target.featureCount() == 0


def test_another_raster_may_be_chosen_meanwhile(user):
    target, layer = user.target(FIELDS), layer_of("Point", points(60))
    outline_features(user, layer)
    user.target(FIELDS)  # for what comes later
    user.dock.raster.setLayer(None)
    QgsProject.instance().removeMapLayer(layer.id())
    end(user)
    assert target.featureCount() == 60


def test_what_the_layer_cannot_take_is_listed_and_the_rest_is_saved(user):
    target = user.target("Polygon?crs=EPSG:32617&field=prompt_id:string(1)")
    layer = layer_of("Point", points(12))
    outline_features(user, layer)
    assert "9 of 12 saved." in end(user)
    assert "10: The field prompt_id cannot hold '10'" in user.dock.many_state.text()
    assert target.featureCount() == 9


def test_outlines_wait_when_their_layer_has_gone(user):
    other, target = user.target(FIELDS), user.target(FIELDS)
    outline_everything(user, "view", 5)
    QgsProject.instance().removeMapLayer(target.id())
    end(user)
    assert user.dock.target.currentLayer() is other and other.featureCount() == 0
    note = user.panel._iface.messageBar().currentItem()
    button = note.findChildren(type(user.dock.many_start))[-1]
    assert button.text() == "Save again"
    button.click()
    end(user)
    assert other.featureCount() == 5


def test_what_is_missing_is_said_before_anything_is_asked(user):
    words = []
    user.panel.many.failed.connect(words.append)

    def said(scope="view"):
        outline_everything(user, scope)
        return words.pop()

    assert "Choose a polygon layer" in said()
    user.target(FIELDS)
    assert "Select polygons" in said("selection")
    assert "Choose a layer with points" in said("layer")
    user.dock.raster.setLayer(None)
    assert "Choose a raster first" in said()
    assert not requests(user, "everything")


def test_hovering_and_clicks_go_on_while_everything_is_looked_for(user):
    user.target(FIELDS)
    outline_everything(user, "view", 5)
    user.click()
    assert user.outlining.best and user.panel.many.is_running
    user.move(X + 1, Y)
    user.until(lambda: user.panel.outlines.shown("hover"))
    assert user.panel.many.is_running
    end(user)
    assert len(user.outlining.draft) == 1  # not touched


def test_slices_run_in_order_and_a_fault_stops_its_own_only(qtbot):
    slices, heard = Slices(), []

    def steps(name, count, fault=None):
        try:
            for number in range(count):
                heard.append((name, number))
                yield
            if fault:
                raise fault
        finally:
            heard.append((name, "tidied"))

    slices.add(steps("a", 2, ValueError("x")), None, lambda error: heard.append(str(error)))
    slices.add(steps("b", 1))
    slices.then(lambda: heard.append("then"))
    qtbot.waitUntil(lambda: not slices.is_running)
    assert heard == [
        ("a", 0), ("a", 1), ("a", "tidied"), "x", ("b", 0), ("b", "tidied"), "then",
    ]  # fmt: skip
    heard.clear()
    slices.add(steps("c", 10**9))
    slices.then(lambda: heard.append("never"))
    QTest.qWait(50)
    slices.stop()
    QTest.qWait(20)
    assert heard[-1] == ("c", "tidied") and not slices.is_running
