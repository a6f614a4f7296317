import pytest
from geosam_qgis.shaping import Shape, as_geojson, as_geometry
from qgis.core import QgsGeometry, QgsPointXY

PLAIN = Shape(simplify_m=None, min_area_m2=0.0, holes_m2=None, square=False)


def polygon(rings, area_m2):
    return {"geometry": {"type": "Polygon", "coordinates": rings}, "area_m2": area_m2}


def square(half, x=0.0, y=0.0):
    return [[x + a * half, y + b * half] for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]


def test_holes_are_filled_by_their_area_on_the_ground():
    """The CRS's unit is 2 m: a hole of 1 by 1 is 4 square metres."""
    given = polygon([square(5), square(0.5)], 99 * 4)
    for limit, filled in ((3.9, False), (4.1, True)):
        drawn = PLAIN._replace(holes_m2=limit).drawn(given, 1.0)
        assert drawn["geometry"].area() == pytest.approx(100 if filled else 99)
        assert drawn["area_m2"] == pytest.approx(400 if filled else 396)


def test_by_default_only_holes_of_a_few_pixels_are_filled():
    given = polygon([square(5), square(0.5, -2), square(1, 2)], 95)
    assert PLAIN.drawn(given, 1 / 10)["geometry"].area() == pytest.approx(96)


def test_corners_are_squared():
    rough = [[0, 0], [10, 0.6], [9.5, 6], [0.3, 5.5], [0, 0]]
    drawn = PLAIN._replace(square=True).drawn(polygon([rough], 1), 0)["geometry"]
    assert drawn.isGeosValid()
    ring = [QgsPointXY(vertex) for vertex in drawn.vertices()]
    for before, at, after in zip(ring, ring[1:], ring[2:]):
        one, other = before - at, after - at
        cosine = (one.x() * other.x() + one.y() * other.y()) / (one.length() * other.length())
        assert cosine == pytest.approx(0, abs=0.02)


def test_nothing_stays_nothing():
    empty = {"geometry": None, "area_m2": 0.0, "status": "empty"}
    assert PLAIN.drawn(empty, 1.0) == empty


def test_geometries_go_to_the_engine_and_come_back():
    wkt = "MultiPolygon (((0 0, 4 0, 4 4, 0 0),(2 1, 3 1, 3 2, 2 1)),((9 9, 10 9, 9 10, 9 9)))"
    assert as_geometry(as_geojson(QgsGeometry.fromWkt(wkt))).asWkt() == wkt
