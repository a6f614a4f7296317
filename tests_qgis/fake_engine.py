"""Speaks the engine's protocol without geosam: `python fake_engine.py serve --stdio`.

Any raster can be opened. A click gives a square of 10 units round it with two holes, three
readings of it with multimask; a box gives itself. `preview` and `encode` take their time.
"""

import json
import os
import sys
import threading
import time

from osgeo import osr

CRS = osr.SpatialReference()
CRS.ImportFromEPSG(32617)
writing = threading.Lock()
cancelled, encoded, asked, given = set(), [0], [], []


def answer(number, **rest):
    with writing:
        sys.stdout.write(json.dumps({"id": number, **rest}) + "\n")
        sys.stdout.flush()


def square(x, y, half):
    return [[x + a * half, y + b * half] for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]


def polygon(prompt, candidate=0, min_area_m2=0):
    if "box" in prompt:
        x0, y0, x1, y1 = prompt["box"]
        rings = [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]
    else:
        x, y = prompt["points"][0]
        rings = [square(x, y, 5 - candidate), square(x - 2, y, 0.05), square(x + 2, y, 1)]
    area = 100.0
    row = {
        "id": prompt["id"], "status": "ok", "score": 0.9 - candidate / 10, "area_m2": area,
        "candidate": candidate, "mask": json.dumps([prompt, candidate]),
        "geometry": {"type": "Polygon", "coordinates": rings},
    }  # fmt: skip
    if area < min_area_m2:
        row.update(geometry=None, status="empty", score=None, area_m2=0.0)
    return row


def encode(number):
    for done in range(encoded[0], 20):
        if number in cancelled:
            answer(number, error={"type": "Cancelled", "message": "cancelled"})
            return
        time.sleep(0.02)
        encoded[0] += 1
        answer(number, event="progress", done=done + 1, total=20, eta_s=0.02 * (19 - done))
    answer(number, ok={"encoded": 20, "grids": grids()})


def batch(number, request):
    rows = []
    for prompt in request["prompts"]:
        time.sleep(0.002)
        if number in cancelled:
            answer(number, error={"type": "Cancelled", "message": "cancelled"})
            return
        if "mask" in prompt:
            answer(number, error={"type": "PromptError", "message": "Prompt: no mask."})
            return
        row = polygon(prompt, 0, request["min_area_m2"])
        x = (prompt.get("points") or [prompt["box"]])[0][0]
        if x > 405000:
            row.update(geometry=None, status="outside", score=None, area_m2=0.0)
        del row["mask"]
        rows.append(row)
    answer(number, event="progress", done=len(rows), total=len(rows), eta_s=0)
    answer(number, ok={"polygons": rows})


def everything(number, request):
    """As many squares as the largest area says, in one row."""
    count = int(request["max_area_m2"] or 3)
    for done in range(20):
        if number in cancelled:
            answer(number, error={"type": "Cancelled", "message": "cancelled"})
            return
        time.sleep(0.01)
        answer(number, event="progress", done=done + 1, total=20, eta_s=0.01 * (19 - done))
    for start in range(0, count, 50):
        rows = [
            polygon({"id": n + 1, "points": [[404220 + 12 * n, 3285110]]})
            for n in range(start, min(start + 50, count))
        ]
        answer(number, event="polygons", polygons=rows)
    answer(number, ok={"found": count})


def grids():
    return [{"scale": 1, "tiles": 20, "done": encoded[0]}]


def preview(number, request):
    time.sleep(0.03)
    answer(number, ok={"polygons": [polygon(request["prompt"])], "encoded": True})


def hello(_request):
    print("a line of the log", file=sys.stderr, flush=True)
    return {"protocol": 1, "version": "fake", "pid": os.getpid()}


def models(_request):
    names = (("nano", True), ("vit", False))
    return {"models": [{"name": n, "ready": r, "size_mb": 9, "licence": "MIT"} for n, r in names]}


def self_test(_request):
    return {"model": "nano-1", "device": "cpu", "iou": 0.98, "encode_ms": 1, "decode_ms": 1}


def open_(_request):
    return {
        "scene": "scene1", "crs": CRS.ExportToWkt(), "model": "nano-1", "device": "cpu",
        "pixel_m": [0.1, 0.1], "grids": grids(),
    }  # fmt: skip


def ready(_request):
    area = {"type": "MultiPolygon", "coordinates": [[square(404220, 3285110, encoded[0])]]}
    return {"area": area if encoded[0] else None, "grids": grids()}


def plan(_request):
    return {"tile_s": 0.1, "seconds": 2.0, "megabytes": 20.0, "tiles": 20, "missing": 20}


def segment(request):
    (prompt,) = request["prompts"]
    count = 3 if request["multimask"] else 1
    return {"polygons": [polygon(prompt, n, request["min_area_m2"]) for n in range(count)]}


def vectorize(request):
    kept = [json.loads(mask) for mask in request["masks"]]
    return {"polygons": [polygon(p, n, request["min_area_m2"]) for p, n in kept]}


def environment(request):
    return {name: os.environ.get(name) for name in request["names"]}


def steps(request):
    for done in range(3):
        answer(request["id"], event="progress", done=done + 1, total=3, eta_s=0.5)
    return {}


def nonsense(_request):
    sys.stdout.write('no json\n["no object"]\n')
    return {}


def refuse(_request):
    raise ValueError("Prompt: no.")


RESPONSES = {
    "hello": hello, "models": models, "self_test": self_test, "open": open_, "ready": ready,
    "plan": plan, "segment": segment, "vectorize": vectorize, "environment": environment,
    "steps": steps, "nonsense": nonsense, "refuse": refuse,
    "close": dict, "echo": dict, "asked": lambda _request: {"asked": asked, "given": given},
    "crash": lambda _request: os.abort(), "hang": lambda _request: time.sleep(60),
}  # fmt: skip

for line in sys.stdin:
    request = json.loads(line)
    asked.append(request["op"])
    given.append(request)
    if request["op"] == "cancel":
        cancelled.add(request["request"])
        answer(request["id"], ok={"cancelled": True})
    elif request["op"] == "encode":
        threading.Thread(target=encode, args=(request["id"],), daemon=True).start()
    elif request["op"] in ("batch", "everything"):
        work = {"batch": batch, "everything": everything}[request["op"]]
        threading.Thread(target=work, args=(request["id"], request), daemon=True).start()
    elif request["op"] == "preview":
        preview(request["id"], request)
    else:
        try:
            answer(request["id"], ok=RESPONSES[request["op"]](request))
        except ValueError as error:
            answer(request["id"], error={"type": "PromptError", "message": str(error)})
