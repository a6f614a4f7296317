"""The protocol as a client sees it, with a model whose masks are known exactly."""

import json
import os
import queue
import shutil
import threading
from contextlib import contextmanager

import numpy as np
import pandas
import pytest
from pyproj import Transformer
from shapely import unary_union
from shapely.geometry import Point, Polygon, box, mapping, shape

from geosam.automatic.run import everything
from geosam.prompts import PromptSet
from geosam.scene import Scene
from geosam.serve.places import edges, outward
from geosam.serve.recent import RecentTiles
from geosam.serve.server import serve
from geosam.verbs import segment
from tests.fakes import FloodModel, discs, write_raster

CRS = "EPSG:32633"
DISC = {"id": "a", "points": [[516_208.5, 5_160_856.5]]}  # row 103, col 112


class SlowModel(FloodModel):
    """Waits, at its next encode, until it is let go."""

    def __init__(self):
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def encode(self, images):
        self.begun.set()
        self.go.wait(10)
        return super().encode(images)


class Client:
    """The other end of a server's streams."""

    def __init__(self, requests, answers):
        self._requests = requests
        self._lines = queue.Queue()
        self.events = []
        self._ids = iter(range(1, 10_000))
        self._kept = {}
        self.reader = threading.Thread(
            target=lambda: [self._lines.put(json.loads(line)) for line in answers]
        )
        self.reader.start()

    def raw(self, line):
        self._requests.write(line)
        self._requests.flush()

    def send(self, op, **given):
        number = next(self._ids)
        self.raw(json.dumps({"id": number, "op": op, **given}).encode() + b"\n")
        return number

    def answer(self, number):
        while number not in self._kept:
            message = self._lines.get(timeout=20)
            if "event" in message:
                self.events.append(message)
            else:
                assert message["id"] not in self._kept or message["id"] is None
                self._kept[message["id"]] = message
        return self._kept[number]

    def ask(self, op, **given):
        message = self.answer(self.send(op, **given))
        assert "ok" in message, message
        return message["ok"]

    def refused(self, op, **given):
        error = self.answer(self.send(op, **given))["error"]
        return error["type"], error["message"]


@contextmanager
def served(model):
    (their_in, our_out), (our_in, their_out) = os.pipe(), os.pipe()
    streams = [
        os.fdopen(end, mode)
        for end, mode in ((their_in, "rb"), (our_out, "wb"), (our_in, "rb"), (their_out, "wb"))
    ]
    rested = []
    server = threading.Thread(
        target=lambda: rested.append(serve(streams[0], streams[3], lambda *_choice: model))
    )
    server.start()
    client = Client(streams[1], streams[2])
    try:
        yield client
    finally:
        streams[1].close()
        server.join(10)
        streams[3].close()
        client.reader.join(10)
        streams[0].close()
        streams[2].close()
    assert rested == [True]


@pytest.fixture
def raster(tmp_path):
    return str(
        write_raster(
            tmp_path / "ortho.tif",
            np.stack([discs((400, 420), (103, 112, 15), (300, 300, 40))] * 3),
        )
    )


@pytest.fixture
def model():
    return FloodModel()


@pytest.fixture
def client(model):
    with served(model) as made:
        yield made


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


def test_a_batch_gives_what_segment_gives_one_a_prompt_in_their_order(client, raster):
    scene = client.ask("open", raster=raster)["scene"]
    far = {"id": "far", "points": [[0, 0]]}
    box = {"id": "box", "box": [516_351, 5_160_615, 516_441, 5_160_705]}
    asked = [far, box, DISC, *({**DISC, "id": str(n)} for n in range(60))]
    given = {"scene": scene, "prompts": asked, "min_area_m2": 100, "simplify_m": 2}
    rows = client.ask("batch", **given)["polygons"]
    alike = client.ask("segment", **given)["polygons"]
    assert [row.pop("mask") for row in alike] and rows == alike
    assert [row["id"] for row in rows] == [prompt["id"] for prompt in asked]
    assert [row["status"] for row in rows[:3]] == ["outside", "ok", "ok"]


def test_a_click_is_answered_while_a_batch_is_at_work_and_it_can_be_cancelled(raster):
    model = SlowModel()
    with served(model) as client:
        scene = client.ask("open", raster=raster)["scene"]
        batch = client.send("batch", scene=scene, prompts=[DISC])
        assert model.begun.wait(10)
        assert not client.ask("preview", scene=scene, prompt=DISC)["encoded"]  # the other lane
        assert client.ask("cancel", request=batch) == {"cancelled": True}
        model.go.set()
        assert client.answer(batch)["error"] == {"type": "Cancelled", "message": "cancelled"}


def told(client, op, **given):
    """A request's answer and the polygons that came before it, an event each."""
    client.events.clear()
    answer = client.ask(op, **given)
    return answer, [e["polygons"] for e in client.events if e["event"] == "polygons"]


def test_everything_comes_in_events_as_the_verb_gives_it(client, model, raster):
    scene = client.ask("open", raster=raster)["scene"]
    answer, events = told(client, "everything", scene=scene)
    rows = [row for event in events for row in event]
    alone = pandas.concat(everything(model, raster), ignore_index=True)
    assert answer == {"found": len(alone)} and len(alone) >= 3
    assert [row["id"] for row in rows] == alone["id"].tolist()
    for row, shown in zip(rows, alone.itertuples(), strict=True):
        assert shape(row["geometry"]).equals(shown.geometry)
        assert (row["score"], row["area_m2"]) == (shown.score, shown.area_m2)
    last = [event for event in client.events if event["event"] == "progress"][-1]
    assert last["done"] == last["total"] > 4


def test_everything_in_an_area_of_some_sizes_or_as_a_coverage(client, raster):
    scene = client.ask("open", raster=raster)["scene"]
    disc = Point(DISC["points"][0]).buffer(5)
    degrees = Transformer.from_crs(CRS, 4326, always_xy=True).transform
    area = mapping(Polygon([degrees(x, y) for x, y in disc.exterior.coords]))
    given = {"scene": scene, "area": area, "crs": "EPSG:4326", "max_area_m2": 5000}
    answer, ((polygon,),) = told(client, "everything", **given)
    assert answer == {"found": 1}
    assert polygon["area_m2"] == pytest.approx(np.pi * 15**2, rel=0.05)
    answer, events = told(client, "everything", min_area_m2=3000, **given)
    assert answer == {"found": 0} and events == []
    _, events = told(client, "everything", scene=scene, coverage=True)
    parts = [shape(row["geometry"]) for event in events for row in event]
    whole = unary_union(parts)
    assert whole.area == pytest.approx(400 * 420, rel=1e-6)
    assert sum(part.area for part in parts) == pytest.approx(whole.area, rel=1e-6)


def test_many_polygons_come_a_few_an_event(client, raster, monkeypatch):
    monkeypatch.setattr("geosam.serve.tasks.POLYGONS_AN_EVENT", 2)
    scene = client.ask("open", raster=raster)["scene"]
    answer, events = told(client, "everything", scene=scene)
    assert {len(event) for event in events} <= {1, 2} and len(events) > 1
    assert sum(map(len, events)) == answer["found"]


def test_everything_stops_within_a_row_of_tiles_when_it_is_cancelled(tmp_path):
    model = SlowModel()
    raster = str(write_raster(tmp_path / "long.tif", discs((100, 1500), (50, 50, 15))))
    with served(model) as client:
        scene = client.ask("open", raster=raster)["scene"]
        request = client.send("everything", scene=scene)
        assert model.begun.wait(10)
        assert client.ask("ready", scene=scene)["area"] is None  # the other lane
        assert client.ask("cancel", request=request) == {"cancelled": True}
        model.go.set()
        assert client.answer(request)["error"] == {"type": "Cancelled", "message": "cancelled"}
        assert 0 < model.encoded <= 4  # the images that the model is given at once
        rows = client.ask("plan", scene=scene, scales=[1])
        assert rows["tiles"] > 12


def test_sizes_the_wrong_way_round_and_areas_that_are_none_are_refused(client, raster):
    scene = client.ask("open", raster=raster)["scene"]
    kind, message = client.refused("everything", scene=scene, min_area_m2=2, max_area_m2=1)
    assert kind == "ProtocolError" and "2 and 1" in message
    point = {"type": "Point", "coordinates": [516_208.5, 5_160_856.5]}
    assert client.refused("everything", scene=scene, area=point)[0] == "PromptError"


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
