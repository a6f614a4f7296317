import pytest
from geosam_qgis.target import NotSaved, choose_fields, mapping_of, new_geopackage, save
from qgis.core import QgsCoordinateReferenceSystem, QgsGeometry, QgsVectorLayer

UTM = QgsCoordinateReferenceSystem("EPSG:32617")
SQUARE = QgsGeometry.fromWkt(
    "POLYGON((500000 4000000,500010 4000000,500010 4000010,500000 4000010,500000 4000000))"
)


def test_a_new_geopackage_keeps_what_is_saved_and_is_never_overwritten(qgis_app, tmp_path):
    path = str(tmp_path / "trees.gpkg")
    layer = new_geopackage(path, UTM)
    assert layer.isValid() and layer.crs() == UTM
    save(layer, SQUARE, UTM, {"class": "tree", "score": 0.5, "area_m2": 100.0})
    assert layer.commitChanges(), layer.commitErrors()
    (feature,) = QgsVectorLayer(path, "again", "ogr").getFeatures()
    assert feature["class"] == "tree" and feature["score"] == 0.5
    assert feature.geometry().area() == pytest.approx(100)
    with pytest.raises(NotSaved, match="exists already"):
        new_geopackage(path, UTM)


def test_each_save_is_one_step_of_qgis_undo(qgis_app):
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:32617&field=class:string", "m", "memory")
    save(layer, SQUARE, UTM, {"class": "a"})
    save(layer, SQUARE, UTM, {"class": "b"})
    assert [f["class"] for f in layer.getFeatures()] == ["a", "b"]
    layer.undoStack().undo()
    assert [f["class"] for f in layer.getFeatures()] == ["a"]
    layer.undoStack().redo()
    assert layer.featureCount() == 2


def test_polygons_are_reprojected_into_the_layers_crs(qgis_app):
    layer = QgsVectorLayer("Polygon?crs=EPSG:4326", "m", "memory")
    save(layer, SQUARE, UTM, {})
    (feature,) = layer.getFeatures()
    centre = feature.geometry().centroid().asPoint()
    assert centre.x() == pytest.approx(-81.0, abs=1e-3) and centre.y() == pytest.approx(
        36.14, abs=0.01
    )


def test_an_existing_layer_is_filled_by_the_names_of_its_fields(qgis_app):
    layer = QgsVectorLayer(
        "Polygon?crs=EPSG:32617&field=CLASS:string&field=other:int", "m", "memory"
    )
    assert mapping_of(layer) == {"class": "CLASS"}
    save(layer, SQUARE, UTM, {"class": "roof", "score": 0.9})
    choose_fields(layer, {"score": "other"})
    save(layer, SQUARE, UTM, {"class": "roof", "score": 0.9})
    first, second = layer.getFeatures()
    assert first["CLASS"] == "roof" and not first["other"]
    assert not second["CLASS"] and second["other"] == 1  # as QGIS rounds


def test_what_a_layer_cannot_hold_is_refused(qgis_app):
    parts = QgsGeometry.fromWkt("MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))")
    single = QgsVectorLayer("Polygon?crs=EPSG:32617", "single", "memory")
    with pytest.raises(NotSaved, match="2 parts"):
        save(single, parts, UTM, {})
    points = QgsVectorLayer("Point?crs=EPSG:32617", "points", "memory")
    with pytest.raises(NotSaved, match="polygon layer"):
        save(points, SQUARE, UTM, {})


def test_a_field_that_cannot_hold_a_value_is_named(qgis_app):
    layer = QgsVectorLayer("Polygon?crs=EPSG:32617&field=class:string(3)", "m", "memory")
    with pytest.raises(NotSaved, match="The field class cannot hold 'tree'"):
        save(layer, SQUARE, UTM, {"class": "tree"})
    assert layer.featureCount() == 0


def test_layers_with_heights_and_single_parts_are_served(qgis_app):
    layer = QgsVectorLayer("PolygonZ?crs=EPSG:32617", "m", "memory")
    save(layer, SQUARE, UTM, {})
    (feature,) = layer.getFeatures()
    assert feature.geometry().wkbType() == layer.wkbType()
