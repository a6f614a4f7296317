"""What the server does beside what a person asks for: batches of prompts, and everything."""

import numpy as np
import pandas
import pytest
from pyproj import Transformer
from shapely import unary_union
from shapely.geometry import Point, Polygon, mapping, shape

from geosam.automatic.run import everything
from tests.fakes import discs, write_raster
from tests.serve.client import CRS, DISC, SlowModel, served


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
