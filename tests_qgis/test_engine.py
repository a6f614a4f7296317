"""The engine's process as the window sees it; offscreen, with a fake engine."""

import sys
import time
from pathlib import Path

import pytest
from geosam_qgis.engine import Engine

FAKE = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]


@pytest.fixture
def engine(qtbot):
    made = Engine(FAKE)
    with qtbot.waitSignal(made.ready, timeout=5000):
        made.start()
    yield made
    made.close()


def wait_for(qtbot, engine, op, **given):
    heard = []
    engine.ask(
        op, given, lambda ok: heard.append(("ok", ok)),
        lambda kind, message: heard.append((kind, message)),
        lambda *progress: heard.append(("progress", progress)),
    )  # fmt: skip
    qtbot.waitUntil(lambda: any(what != "progress" for what, _ in heard), timeout=5000)
    return heard


def test_it_says_hello_and_answers_each_request(qtbot, engine):
    assert engine.about["version"] == "fake"
    ((what, echoed),) = wait_for(qtbot, engine, "echo", text="ä\n")
    assert what == "ok" and echoed["text"] == "ä\n"


def test_progress_then_the_answer(qtbot, engine):
    heard = wait_for(qtbot, engine, "steps")
    assert heard == [("progress", (n, 3, 0.5)) for n in (1, 2, 3)] + [("ok", {})]


def test_errors_have_their_kind_and_nonsense_is_survived(qtbot, engine):
    assert wait_for(qtbot, engine, "refuse") == [("PromptError", "Prompt: no.")]
    assert wait_for(qtbot, engine, "nonsense") == [("ok", {})]


def test_a_crash_is_noticed_at_once_and_survived(qtbot, engine):
    heard = []
    began = time.monotonic()
    with qtbot.waitSignal(engine.gone, timeout=5000) as blocker:
        engine.ask("crash", {}, None, lambda kind, message: heard.append(kind))
    assert time.monotonic() - began < 2  # a loaded machine; the desktop's test has the figure
    assert blocker.args[0].splitlines()[0].startswith("code ")
    assert heard == ["EngineGone"] and "a line of the log" in blocker.args[0]
    assert not engine.is_running
    with qtbot.waitSignal(engine.ready, timeout=5000):
        engine.start()
    assert wait_for(qtbot, engine, "echo")[0][0] == "ok"


def test_a_command_that_is_not_there_is_told(qtbot):
    engine = Engine(["/no/such/program"])
    with qtbot.waitSignal(engine.gone, timeout=5000) as blocker:
        engine.start()
    assert "/no/such/program could not be started" in blocker.args[0]
    assert not engine.is_running


def test_a_request_to_an_engine_that_is_gone_fails_later_not_now(qtbot):
    engine = Engine(FAKE)
    assert wait_for(qtbot, engine, "echo")[0][0] == "EngineGone"


def test_what_qgis_set_for_itself_does_not_reach_the_engine(qtbot, monkeypatch):
    for name in ("PYTHONHOME", "PROJ_LIB", "MY_OWN"):
        monkeypatch.setenv(name, "x")
    engine = Engine(FAKE)
    with qtbot.waitSignal(engine.ready, timeout=5000):
        engine.start()
    ((_, found),) = wait_for(
        qtbot, engine, "environment", names=["PYTHONHOME", "PROJ_LIB", "MY_OWN"]
    )
    assert found == {"PYTHONHOME": None, "PROJ_LIB": None, "MY_OWN": "x"}
    engine.close()


def test_closing_ends_even_an_engine_that_hangs(qtbot, engine, monkeypatch):
    monkeypatch.setattr("geosam_qgis.engine.CLOSING_MS", 200)
    engine.ask("hang", {})
    gone = []
    engine.gone.connect(gone.append)
    engine.close()
    assert not engine.is_running and gone == []


def test_a_callback_that_fails_holds_up_no_other(qtbot, engine):
    def fail(_answer):
        raise RuntimeError("on purpose")

    heard = []
    with qtbot.captureExceptions() as exceptions:
        engine.ask("echo", {}, fail)
        for number in range(3):
            engine.ask("echo", {"number": number}, lambda ok: heard.append(ok["number"]))
        qtbot.waitUntil(lambda: heard == [0, 1, 2], timeout=5000)
    assert len(exceptions) == 1
    assert engine.is_running


def test_a_killed_engine_answers_those_who_wait(qtbot, engine):
    heard = []
    engine.ask("hang", {}, None, lambda kind, message: heard.append(kind))
    engine.kill()
    assert not engine.is_running and heard == ["EngineGone"]
