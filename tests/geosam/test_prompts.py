import geopandas
import numpy as np
import pandas as pd
import pytest
from pyproj import CRS
from shapely import LineString, MultiPoint, MultiPolygon, Point, Polygon, box

from geosam.errors import PromptError
from geosam.prompts import Prompt, PromptSet

TRIANGLE = Polygon([(0, 0), (4, 0), (0, 4)])
BOWTIE = Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])


def table(geometry, crs="EPSG:32633", **columns):
    return geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)


def contents(prompt):
    return prompt.id, prompt.points.tolist(), prompt.labels.tolist(), prompt.box, prompt.mask


# Prompt


def test_a_prompt_keeps_its_own_read_only_arrays():
    points = np.array([[1, 2], [3, 4]])
    prompt = Prompt("a", points, [1, 0])
    points[:] = 9
    assert contents(prompt) == ("a", [[1, 2], [3, 4]], [1, 0], None, None)
    assert prompt.points.dtype == np.float64 and prompt.labels.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        prompt.points[0] = 0


def test_a_prompt_may_hold_everything_at_once():
    prompt = Prompt("a", [[1, 1]], [True], (0, 0, 4, 4), TRIANGLE)
    assert contents(prompt) == ("a", [[1, 1]], [1], (0, 0, 4, 4), TRIANGLE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "empty"),
        ({"points": [1, 2], "labels": [1]}, r"points of shape \(2,\)"),
        ({"points": [[1, 2, 3]], "labels": [1]}, r"points of shape \(1, 3\)"),
        ({"points": [[1, np.nan]], "labels": [1]}, "NaN"),
        ({"points": [["1", "2"]], "labels": [1]}, "Convert"),
        ({"points": [[1, 2]]}, r"labels of shape \(0,\)"),
        ({"points": [[1, 2]], "labels": [2]}, r"labels \[2\]"),
        ({"points": [[1, 2]], "labels": [0.5]}, "float64 values"),
        ({"box": (0, 0, 0, 1)}, "no area"),
        ({"box": (0, 1, 1, 0)}, "upside down"),
        ({"box": (0, 0, 1)}, "4 finite numbers"),
        ({"box": (0, 0, 1, np.inf)}, "4 finite numbers"),
        ({"mask": Polygon()}, "empty Polygon"),
        ({"mask": Point(1, 1)}, "a Point"),
        ({"mask": BOWTIE}, "Self-intersection"),
    ],
)
def test_a_prompt_refuses_what_names_no_object(fields, message):
    with pytest.raises(PromptError, match=f"^Prompt 'a': .*{message}"):
        Prompt("a", **fields)


# PromptSet


def test_a_set_is_a_sequence():
    prompts = PromptSet.of(points=[(1, 2), (3, 4)], ids=["a", "b"])
    assert len(prompts) == 2
    assert [prompt.id for prompt in prompts] == ["a", "b"]
    assert prompts[-1].id == "b"


def test_ids_are_unique():
    with pytest.raises(PromptError, match="'a': its id occurs twice"):
        PromptSet.of(points=[(1, 2), (3, 4)], ids=["a", "a"])


def test_only_longitudes_cross_the_antimeridian():
    boxes = [(170, -20, -170, -10)]
    assert PromptSet.of(boxes=boxes, crs="EPSG:4326")[0].box == (170, -20, -170, -10)
    for crs in (None, "EPSG:32660"):
        with pytest.raises(PromptError, match="xmin > xmax"):
            PromptSet.of(boxes=boxes, crs=crs)


# PromptSet.of


def test_every_row_is_an_object_of_its_own():
    prompts = PromptSet.of(
        points=[(1, 2), [(3, 4), (5, 6)]], boxes=np.array([[0, 0, 2, 2]]), polygons=[TRIANGLE]
    )
    assert list(map(contents, prompts)) == [
        ("1", [[1, 2]], [1], None, None),
        ("2", [[3, 4], [5, 6]], [1, 1], None, None),
        ("3", [], [], (0, 0, 2, 2), None),
        ("4", [], [], None, TRIANGLE),
    ]
    assert prompts.crs is None


def test_labels_follow_the_rows_of_points():
    prompts = PromptSet.of(points=[(1, 2), [(3, 4), (5, 6)]], labels=[0, [1, 0]], crs=4326)
    assert [prompt.labels.tolist() for prompt in prompts] == [[0], [1, 0]]
    assert prompts.crs == CRS("EPSG:4326")


def test_an_array_of_points_is_one_object_a_row():
    prompts = PromptSet.of(points=np.arange(6).reshape(3, 2), ids=[7, 8, 9])
    assert [contents(prompt)[:2] for prompt in prompts] == [
        ("7", [[0, 1]]),
        ("8", [[2, 3]]),
        ("9", [[4, 5]]),
    ]


def test_nothing_is_an_empty_set():
    assert len(PromptSet.of()) == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": (1.0, 2.0)}, "expected"),
        ({"points": [(1, 2)], "labels": [1, 0]}, "Labels: 2"),
        ({"points": [[(1, 2), (3, 4)]], "labels": [1]}, "expected one label for each of 2"),
        ({"points": [(1, 2)], "ids": ["a", "b"]}, "Ids: 2"),
        ({"boxes": [(1, 2, 3)]}, "4 finite numbers"),
        ({"points": [(1, 2)], "crs": "EPSG:0"}, "CRS: 'EPSG:0' is not known"),
    ],
)
def test_of_refuses_rows_that_do_not_fit(fields, message):
    with pytest.raises(PromptError, match=message):
        PromptSet.of(**fields)


# PromptSet.from_geodataframe


def test_geometries_become_points_boxes_and_masks():
    hexagon_box = Polygon([(0, 0), (1, 0), (2, 0), (2, 3), (0, 3)])
    holed = Polygon(box(0, 0, 9, 9).exterior, [box(1, 1, 2, 2).exterior])
    two = MultiPolygon([box(0, 0, 1, 1), box(2, 2, 3, 3)])
    prompts = PromptSet.from_geodataframe(
        table(
            [
                Point(1, 2, 3),
                MultiPoint([(1, 2), (3, 4)]),
                box(0, 0, 2, 3),
                hexagon_box,
                MultiPolygon([box(0, 0, 2, 3)]),
                TRIANGLE,
                MultiPolygon([TRIANGLE]),
                holed,
                two,
            ]
        )
    )
    assert list(map(contents, prompts)) == [
        ("1", [[1, 2]], [1], None, None),
        ("2", [[1, 2], [3, 4]], [1, 1], None, None),
        ("3", [], [], (0, 0, 2, 3), None),
        ("4", [], [], (0, 0, 2, 3), None),
        ("5", [], [], (0, 0, 2, 3), None),
        ("6", [], [], None, TRIANGLE),
        ("7", [], [], None, TRIANGLE),
        ("8", [], [], None, holed),
        ("9", [], [], None, two),
    ]
    assert prompts.crs == CRS("EPSG:32633")


def test_heights_of_polygons_are_left_aside():
    (prompt,) = PromptSet.from_geodataframe(table([Polygon([(0, 0, 9), (4, 0, 9), (0, 4, 9)])]))
    assert not prompt.mask.has_z


@pytest.mark.parametrize("column", ["id", "prompt_id"])
def test_rows_that_share_an_id_are_one_prompt(column):
    geometry = [Point(1, 2), box(0, 0, 9, 9), Point(5, 6), Point(3, 4), TRIANGLE]
    ids = ["b", "a", "a", "b", "a"]
    prompts = PromptSet.from_geodataframe(
        table(geometry, **{column: ids}, label=[1, 1, 0, "bg", None])
    )
    assert list(map(contents, prompts)) == [
        ("b", [[1, 2], [3, 4]], [1, 0], None, None),
        ("a", [[5, 6]], [0], (0, 0, 9, 9), TRIANGLE),
    ]


def test_whole_numbers_name_objects_however_they_are_stored():
    geometry = [Point(1, 2), Point(3, 4)]
    for ids in ([1, 2], [1.0, 2.0], ["1", "2"], pd.array([1, 2], dtype="Int64")):
        prompts = PromptSet.from_geodataframe(table(geometry, id=ids))
        assert [prompt.id for prompt in prompts] == ["1", "2"]


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        *((cell, 1) for cell in (1, 1.0, "1", "FG", True, np.True_, "true")),
        *((cell, 0) for cell in (0, 0.0, "0", "bg", False, np.False_, "False")),
    ],
)
def test_labels_are_read_as_people_write_them(cell, label):
    (prompt,) = PromptSet.from_geodataframe(table([Point(1, 2)], label=[cell]))
    assert prompt.labels.tolist() == [label]


def test_a_label_that_means_something_else_does_not_hinder_polygons():
    prompts = PromptSet.from_geodataframe(table([box(0, 0, 1, 1), TRIANGLE], label=["oak", 7]))
    assert len(prompts) == 2


@pytest.mark.parametrize(
    ("geometry", "columns", "message"),
    [
        (Point(1, 2), {"label": ["oak"]}, "Row 2: no known label"),
        (Point(1, 2), {"label": [None]}, "Row 2: no known label"),
        (box(0, 0, 1, 1), {"label": [0]}, "Row 2: a background polygon"),
        (LineString([(0, 0), (1, 1)]), {}, "Row 2: a LineString"),
        (None, {}, "Row 2: no geometry"),
        (Point(), {}, "Row 2: no geometry"),
        (Point(1, 2), {"id": [None]}, "Row 2: no id"),
        (Point(1, 2), {"id": ["b"], "prompt_id": ["b"]}, "columns id and prompt_id"),
        (BOWTIE, {}, "Prompt '2': invalid polygon"),
    ],
)
def test_a_row_that_is_no_prompt_is_named(geometry, columns, message):
    columns = {name: ["a" if "id" in name else 1, *cells] for name, cells in columns.items()}
    with pytest.raises(PromptError, match=message):
        PromptSet.from_geodataframe(table([Point(0, 0), geometry], **columns))


@pytest.mark.parametrize(("geometry", "kind"), [(box(0, 0, 1, 1), "box"), (TRIANGLE, "polygon")])
def test_one_object_has_one_box_and_one_polygon(geometry, kind):
    with pytest.raises(PromptError, match=f"Row 2: a second {kind} for one id"):
        PromptSet.from_geodataframe(table([geometry, geometry], id=["a", "a"]))


def test_the_crs_is_known_and_not_contradicted():
    bare, placed = table([Point(1, 2)], crs=None), table([Point(1, 2)], crs="OGC:CRS84")
    with pytest.raises(PromptError, match="no CRS"):
        PromptSet.from_geodataframe(bare)
    assert PromptSet.from_geodataframe(bare, crs="EPSG:3857").crs == CRS("EPSG:3857")
    assert PromptSet.from_geodataframe(placed, crs="EPSG:4326").crs == CRS("OGC:CRS84")
    with pytest.raises(PromptError, match=r"EPSG:3857 contradicts their own OGC:CRS84"):
        PromptSet.from_geodataframe(placed, crs="EPSG:3857")


# PromptSet.read


@pytest.mark.parametrize("name", ["clicks.gpkg", "clicks.geojson", "clicks.fgb", "clicks.shp"])
def test_any_vector_file_is_read(tmp_path, name):
    table([Point(1, 2), Point(3, 4)], "EPSG:4326", id=["a", "b"], label=[1, 0]).to_file(
        tmp_path / name
    )
    prompts = PromptSet.read(tmp_path / name)
    assert sorted(map(contents, prompts)) == [
        ("a", [[1, 2]], [1], None, None),
        ("b", [[3, 4]], [0], None, None),
    ]
    assert prompts.crs.equals("EPSG:4326", ignore_axis_order=True)


def test_a_layer_is_named_where_several_hold_geometries(tmp_path):
    path = tmp_path / "clicks.gpkg"
    table([Point(1, 2)]).to_file(path, layer="trees")
    pd_table = geopandas.GeoDataFrame({"style": ["red"]}, geometry=[None]).drop(columns="geometry")
    geopandas.io.file.pyogrio.write_dataframe(pd_table, path, layer="layer_styles")
    assert len(PromptSet.read(path)) == 1
    table([Point(1, 2), Point(3, 4)]).to_file(path, layer="roofs")
    assert len(PromptSet.read(path, layer="roofs")) == 2
    with pytest.raises(PromptError, match=r"clicks\.gpkg: 2 layers with geometries: trees, roofs"):
        PromptSet.read(path)
    with pytest.raises(PromptError, match=r"clicks\.gpkg: .*cars"):
        PromptSet.read(path, layer="cars")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(PromptError, match=r"missing\.gpkg"):
        PromptSet.read(tmp_path / "missing.gpkg")
    csv = tmp_path / "points.csv"
    csv.write_text("x,y\n1,2\n")
    with pytest.raises(PromptError, match=r"points\.csv: 0 layers with geometries"):
        PromptSet.read(csv)
    table([LineString([(0, 0), (1, 1)])]).to_file(tmp_path / "roads.gpkg")
    with pytest.raises(PromptError, match=r"roads\.gpkg: Row 1: a LineString"):
        PromptSet.read(tmp_path / "roads.gpkg")
