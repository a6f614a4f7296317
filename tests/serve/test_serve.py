"""The protocol as a client sees it, with a model whose masks are known exactly."""

import shutil

import numpy as np
import pytest
from pyproj import Transformer
from shapely.geometry import Point, Polygon, box, shape

from geosam.prompts import PromptSet
from geosam.scene import Scene
from geosam.serve.places import edges, outward
from geosam.serve.recent import RecentTiles
from geosam.verbs import segment
from tests.serve.client import CRS, DISC, SlowModel, served


def test_hello_agrees_on_the_protocol_and_refuses_another(client):
    assert client.ask("hello", protocol=1)["protocol"] == 1
    kind, message = client.refused("hello", protocol=2)
    assert kind == "ProtocolError" and "expected 1" in message


def test_a_click_gives_what_the_verb_gives(client, model, raster):
    scene = client.ask("open", raster=raster)["scene"]
    (polygon,) = client.ask("segment", scene=scene, prompts=[DISC])["polygons"]
    alone = segment(model, raster, PromptSet.of(points=DISC["points"], ids=["a"]))
    assert shape(polygon["geometry"]).equals(alone.geometry[0])
    assert {name: polygon[name] for name in ("id", "status", "score", "area_m2", "scale")} == {
        name: alone[name][0] for name in ("id", "status", "score", "area_m2", "scale")
    }


def test_prompts_are_answered_in_order_each_with_a_status(client, raster):
    scene = client.ask("open", raster=raster)["scene"]
    off = {"id": "off", "points": [[0, 0]]}
    box = {"id": "box", "box": [516_351, 5_160_615, 516_441, 5_160_705]}
    rows = client.ask("segment", scene=scene, prompts=[off, box, DISC])["polygons"]
    assert [(row["id"], row["status"]) for row in rows] == [
        ("off", "outside"), ("box", "ok"), ("a", "ok"),
    ]  # fmt: skip
    assert rows[0]["geometry"] is None and rows[0]["score"] is None


def test_prompts_in_another_crs(client, raster):
    scene = client.ask("open", raster=raster)["scene"]
    (near,) = client.ask("segment", scene=scene, prompts=[DISC])["polygons"]
    to_degrees = Transformer.from_crs(CRS, 4326, always_xy=True)
    lonlat = {"id": "a", "points": [to_degrees.transform(*DISC["points"][0])]}
    (far,) = client.ask("segment", scene=scene, prompts=[lonlat], crs="EPSG:4326")["polygons"]
    assert far["geometry"] == near["geometry"]


def test_other_bands_are_opened_beside_the_usual_ones(client, raster):
    usual = client.ask("open", raster=raster)
    other = client.ask("open", raster=raster, bands=[3, 1, 2])
    assert (usual["bands"], other["bands"]) == ([1, 2, 3], [3, 1, 2])
    assert usual["store"] != other["store"]
    for scene in (usual["scene"], other["scene"]):
        assert client.ask("batch", scene=scene, prompts=[DISC])["polygons"][0]["status"] == "ok"


def test_kept_masks_are_drawn_anew_without_decoding(client, model, raster, monkeypatch):
    scene = client.ask("open", raster=raster)["scene"]
    (first,) = client.ask("segment", scene=scene, prompts=[DISC], simplify_m=0)["polygons"]
    monkeypatch.setattr(model, "decode", None)
    (same,) = client.ask("vectorize", masks=[first["mask"]], simplify_m=0)["polygons"]
    assert same == first
    (rough,) = client.ask("vectorize", masks=[first["mask"]], simplify_m=5)["polygons"]
    assert len(rough["geometry"]["coordinates"][0]) < len(first["geometry"]["coordinates"][0])
    (none,) = client.ask("vectorize", masks=[first["mask"]], min_area_m2=1e6)["polygons"]
    assert none["geometry"] is None
    kind, message = client.refused("vectorize", masks=["mask999"])
    assert kind == "ProtocolError" and "mask999" in message


def test_a_preview_is_what_a_click_gives_and_encodes_only_if_told(client, model, raster):
    scene = client.ask("open", raster=raster)["scene"]
    assert client.ask("preview", scene=scene, prompt=DISC) == {"polygons": [], "encoded": False}
    assert model.encoded == 0
    shown = client.ask("preview", scene=scene, prompt=DISC, encode=True)
    assert shown["encoded"] and model.encoded > 0
    (polygon,) = client.ask("segment", scene=scene, prompts=[DISC])["polygons"]
    assert shown["polygons"][0]["geometry"] == polygon["geometry"]
    assert client.ask("preview", scene=scene, prompt=DISC)["encoded"]


def test_of_waiting_previews_only_the_newest_is_answered(raster):
    model = SlowModel()
    with served(model) as client:
        scene = client.ask("open", raster=raster)["scene"]
        first = client.send("preview", scene=scene, prompt=DISC, encode=True)
        assert model.begun.wait(10)
        waiting = [client.send("preview", scene=scene, prompt=DISC) for _ in range(3)]
        assert client.ask("cancel", request=999) == {"cancelled": False}  # they have all arrived
        model.go.set()
        assert client.answer(first)["ok"]["encoded"]
        assert client.answer(waiting[2])["ok"]["encoded"]
        for number in waiting[:2]:
            assert client.answer(number)["error"] == {"type": "Cancelled", "message": "superseded"}


def test_plan_encode_and_tiles_agree(client, model, raster):
    opened = client.ask("open", raster=raster)
    scene = opened["scene"]
    assert all(grid["done"] == 0 for grid in opened["grids"])
    plan = client.ask("plan", scene=scene)
    model.encoded = 0
    done = client.ask("encode", scene=scene)
    assert plan["tiles"] == plan["missing"] == done["encoded"] == model.encoded
    assert client.events[-1]["event"] == "progress"
    assert client.events[-1]["done"] == client.events[-1]["total"] == plan["tiles"]
    assert client.ask("plan", scene=scene)["missing"] == 0
    assert client.ask("encode", scene=scene)["encoded"] == 0
    ready = client.ask("ready", scene=scene)
    assert ready["grids"] == done["grids"]
    assert sum(grid["done"] for grid in done["grids"] if grid["scale"] >= 0.5) == plan["tiles"]
    area = shape(ready["area"])
    assert area.equals(box(*opened["bounds"])) and len(area.exterior.coords) == 5


def test_an_area_is_encoded_from_the_view_outward(client, model, raster):
    scene = client.ask("open", raster=raster)["scene"]
    left = {"type": "Polygon", "coordinates": [[
        [516_096, 5_160_560], [516_196, 5_160_560], [516_196, 5_160_960], [516_096, 5_160_960],
        [516_096, 5_160_560],
    ]]}  # fmt: skip
    whole = client.ask("plan", scene=scene, scales=[1])
    part = client.ask("plan", scene=scene, area=left, scales=[1])
    assert 0 < part["tiles"] < whole["tiles"]
    client.ask("encode", scene=scene, area=left, crs=CRS, scales=[1], view=[516_096, 5_160_570])
    ready = client.ask("ready", scene=scene)
    assert [g["done"] for g in ready["grids"] if g["scale"] == 1] == [part["tiles"]]
    assert ready["area"] is None  # a click is tried at other scales too
    client.ask("encode", scene=scene, area=left)
    area = shape(client.ask("ready", scene=scene)["area"])
    assert area.covers(shape(left)) and area.bounds[2] < 516_516


def test_where_a_click_is_answered_at_once_is_ready(client, model, raster):
    scene = client.ask("open", raster=raster)["scene"]
    left = {"type": "Polygon", "coordinates": [[
        [516_106, 5_160_860], [516_116, 5_160_860], [516_116, 5_160_870], [516_106, 5_160_860],
    ]]}  # fmt: skip
    client.ask("encode", scene=scene, area=left)
    area = shape(client.ask("ready", scene=scene)["area"])
    x, y = area.bounds[0] + 1, area.bounds[3] - 1
    beyond = area.bounds[2] + 1
    assert 516_116 <= area.bounds[2] < 516_516
    shown = [
        client.ask("preview", scene=scene, prompt={"id": "a", "points": [[at, y]]})["encoded"]
        for at in (x, beyond)
    ]
    assert shown == [True, False]


def test_where_clicks_are_answered_grows_from_the_view_outward(model, raster):
    scene = Scene.open(model, raster)
    tiles = [tile for scale in (0.5, 1, 2) for tile in scene.store.grid(scale)]
    order = outward(tiles, (410.0, 10.0))
    assert len(order) == len(tiles)
    seen = dict.fromkeys((0.5, 1, 2), Polygon())
    for tile in order:
        core = box(*edges(tile))
        way = max(410 - core.bounds[2], core.bounds[1] - 10, 0)  # the raster's corner is near
        near = box(410 - way, 10 - way, 410 + way, 10 + way) & box(0, 0, 420, 400)
        assert all(area.covers(near) for area in seen.values()) or way == 0
        seen[tile.scale] = seen[tile.scale].union(core)
    assert box(*edges(order[0])).covers(Point(410, 10)) and order[0].scale == 2


def test_a_click_is_answered_while_a_scene_is_encoded_and_encoding_can_be_cancelled(raster):
    model = SlowModel()
    with served(model) as client:
        scene = client.ask("open", raster=raster)["scene"]
        encoding = client.send("encode", scene=scene)
        assert model.begun.wait(10)
        assert client.ask("ready", scene=scene)["area"] is None  # the other lane
        assert client.ask("cancel", request=encoding) == {"cancelled": True}
        model.go.set()
        assert client.answer(encoding)["error"] == {"type": "Cancelled", "message": "cancelled"}
        some = sum(grid["done"] for grid in client.ask("open", raster=raster)["grids"])
        rest = client.ask("encode", scene=scene)["encoded"]
        assert some + rest == client.ask("plan", scene=scene)["tiles"]


def test_self_test_reports_on_the_model(client):
    facts = client.ask("self_test")
    assert facts["model"] == "flood-0" and facts["encode_ms"] >= 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"op": "fly"}, "expected one of batch, cancel, close, encode"),
        ({"op": "open"}, "no parameter 'raster'"),
        ({"op": "open", "raster": 5}, "raster is 5 (expected str)"),
        ({"op": "open", "raster": "a.tif", "bandz": [1]}, "'bandz'"),
        ({"op": "open", "raster": "a.tif", "bands": [1, "2"]}, "bands is [1, '2']"),
        ({"op": "segment", "scene": "scene9", "prompts": []}, "Scene 'scene9': not open"),
        ({"op": "segment", "scene": "s", "prompts": [], "simplify_m": True}, "simplify_m is True"),
    ],
)
def test_requests_that_make_no_sense_are_refused_by_name(client, given, words):
    kind, message = client.refused(given.pop("op"), **given)
    assert kind == "ProtocolError" and words in message


def test_errors_of_the_data_have_their_names_and_the_server_goes_on(client, raster, tmp_path):
    assert client.refused("open", raster=str(tmp_path / "none.tif"))[0] == "RasterError"
    scene = client.ask("open", raster=raster)["scene"]
    for prompt, kind in (
        ({"id": "a"}, "PromptError"),
        ({"id": "a", "points": [[1, 2, 3]]}, "ProtocolError"),
        ({"id": "a", "point": [1, 2]}, "ProtocolError"),
        ({"id": "a", "mask": {"type": "Polygon"}}, "ProtocolError"),
        ({"id": "a", "mask": {"type": "Point", "coordinates": [1, 2]}}, "PromptError"),
    ):
        assert client.refused("segment", scene=scene, prompts=[prompt])[0] == kind
    assert (
        client.refused("segment", scene=scene, prompts=[DISC], crs="EPSG:0")[0] == "ProtocolError"
    )
    assert client.ask("segment", scene=scene, prompts=[DISC])["polygons"]
    client.ask("close", scene=scene)
    assert client.refused("plan", scene=scene)[0] == "ProtocolError"


def test_a_fault_of_our_own_is_told_and_survived(client, model, raster, monkeypatch, caplog):
    scene = client.ask("open", raster=raster)["scene"]
    client.ask("encode", scene=scene)
    with monkeypatch.context() as patch:
        patch.setattr(model, "decode", None)
        assert client.refused("segment", scene=scene, prompts=[DISC])[0] == "InternalError"
    assert "TypeError" in caplog.text
    assert client.ask("segment", scene=scene, prompts=[DISC])["polygons"]


def test_lines_that_are_no_requests_are_answered_and_survived(client):
    for line in (
        b"{\n",
        b"[1]\n",
        b'{"op": "hello"}\n',
        b'{"id": 1.5, "op": "hello"}\n',
        b"\xff\n",
    ):
        client.raw(line)
    client.raw(b"\n")
    client.ask("hello", protocol=1)
    assert client.answer(None)["error"]["type"] == "ProtocolError"


def test_tiles_that_were_read_stay_in_memory_and_missing_ones_are_looked_up_again(model, raster):
    scene = Scene.open(model, raster)
    store = RecentTiles.open(scene.store.path)
    tile = next(iter(store.grid(1)))
    assert store.status(tile) == "missing"
    scene.ensure([tile])
    assert store.status(tile) == "done"
    features, valid, whole = store[tile], store.valid(tile), store.whole(tile)
    np.testing.assert_array_equal(features, scene.store[tile])
    np.testing.assert_array_equal(valid, scene.store.valid(tile))
    np.testing.assert_array_equal(whole, scene.store.whole(tile))
    shutil.rmtree(store.path)
    assert store[tile] is features and store.valid(tile) is valid and store.whole(tile) is whole


def test_only_so_many_tiles_stay_in_memory(model, raster, monkeypatch):
    store = RecentTiles.open(Scene.open(model, raster).store.path)
    Scene.open(model, raster).ensure(store.grid(1))
    first, second, *_ = store.grid(1)
    monkeypatch.setattr("geosam.serve.recent.KEPT_BYTES", store.valid(first).nbytes)
    kept = store.valid(first)
    assert store.valid(first) is kept
    store.valid(second)
    assert store.valid(first) is not kept
