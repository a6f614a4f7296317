"""The commands about models, against a server of their own."""

import hashlib
import json

import pytest
import torch

from geosam import load_model, registry
from geosam.errors import ModelError, WeightsError
from geosam.model import sam1_weights, sam2_weights
from geosam.registry import WeightsFile
from tests.cli.test_cli import ortho, run  # noqa: F401  # a fixture
from tests.geosam.test_download import environment, server  # noqa: F401  # fixtures
from tests.seeded import TINY, TINY_2, official, official_2


@pytest.fixture
def tiny(server, tmp_path, monkeypatch):  # noqa: F811
    """A published model of which the server has the weights."""
    torch.save(official(), tmp_path / "tiny.pth")
    server.data = (tmp_path / "tiny.pth").read_bytes()
    digest = hashlib.sha256(server.data).hexdigest()
    file = WeightsFile("tiny", f"{server.url}/sam_tiny.pth", len(server.data), digest, "MIT", 256)
    monkeypatch.setitem(registry.PUBLISHED, "tiny", file)
    monkeypatch.setitem(sam1_weights.CONFIGS, "tiny", TINY)
    return file


@pytest.fixture
def tiny_2(tiny, tmp_path, monkeypatch):
    """A SAM 2 under the same name, fetched already."""
    path = tmp_path / "tiny_2.pt"
    torch.save({"model": official_2()}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    file = WeightsFile("tiny", "https://example.com/sam2_tiny.pt", 1, digest, "MIT", 256)
    file.path.parent.mkdir(parents=True, exist_ok=True)
    path.rename(file.path)
    monkeypatch.setitem(registry.PUBLISHED, "tiny", file)
    monkeypatch.setitem(sam2_weights.CONFIGS_2, "tiny", TINY_2)
    return file


def test_a_model_is_fetched_listed_verified_and_loaded(tiny, server):  # noqa: F811
    with pytest.raises(ModelError, match=r"'tiny': not fetched yet.*geosam models pull tiny"):
        load_model("tiny")
    assert server.seen == []
    pulled = json.loads(run("models", "pull", "tiny", "--json").stdout)
    assert pulled == {"model": "tiny", "id": tiny.model_id, "path": str(tiny.path)}
    row = json.loads(run("models", "list", "--json").stdout)[-1]
    assert (row["id"], row["weights"], row["licence"]) == (tiny.model_id, str(tiny.path), "MIT")
    assert str(tiny.path) in run("models", "list").stdout.splitlines()[-1]
    assert json.loads(run("models", "verify", "--json").stdout) == {"tiny": "ok"}
    model = load_model("tiny")
    assert model.id == tiny.model_id == load_model(tiny.path).id
    assert model.feature_shape == (64, 16, 16)


def test_damaged_and_absent_weights_end_in_exit_code_1(tiny):
    assert run("models", "verify").output == ""
    assert "absent" in run("models", "verify", "tiny", code=1).output
    run("models", "pull", "tiny")
    other = official(seed=1)
    torch.save(other, tiny.path)
    result = run("models", "verify", code=1)
    assert "tiny  damaged" in result.stdout
    assert "Run `geosam models pull tiny`" in result.stderr
    with pytest.raises(WeightsError, match=rf"expected {tiny.model_id}\)\. Remove it and run"):
        load_model("tiny")


def test_unknown_models_and_absent_servers_are_one_line(tiny, monkeypatch):
    assert "no published weights" in run("models", "pull", "vit_x", code=1).stderr
    result = run("models", "pull", "tiny", "--mirror", "http://127.0.0.1:1/", code=1)
    assert "127.0.0.1:1/sam_tiny.pth" in result.stderr
    monkeypatch.setenv("GEOSAM_OFFLINE", "1")
    assert "GEOSAM_OFFLINE is set" in run("models", "pull", "tiny", code=1).stderr


def test_every_verb_takes_sam(tiny, ortho):  # noqa: F811
    run("models", "pull", "tiny")
    check_every_verb(tiny, ortho)


def test_every_verb_takes_sam_2(tiny_2, ortho):  # noqa: F811
    check_every_verb(tiny_2, ortho)


def check_every_verb(tiny, ortho):  # noqa: F811
    store = ortho.with_name("features.zarr")
    run("encode", ortho, "-o", store, "--model", "tiny", "--scales", "1,2")
    prompts = ("--point", 516_216, 5_160_860, "--box", 516_176, 5_160_810, 516_256, 5_160_910)
    found = [
        json.loads(run("segment", source, *prompts, *more, "--model", model).stdout)["features"]
        for source, more, model in (
            (ortho, ("--store", store), "tiny"),
            (store, (), tiny.path),
        )
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 2
    assert tiny.model_id in run("info", ortho, "--model", "tiny", "--json").stdout
    words = ("check", store, "--raster", ortho, "--json")
    assert json.loads(run(*words, "--model", "tiny").stdout)["made_with"] == tiny.model_id
    assert "nano" in run(*words, code=1).stderr
