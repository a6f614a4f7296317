import subprocess
import sys

import pytest

from geosam.__main__ import main
from geosam.drafts import draft
from geosam.errors import LabelError, OutputError

HOLDER = """
import sys
from pathlib import Path
from geosam.drafts import draft

with draft(Path(sys.argv[1])) as place:
    place.write_text("theirs")
    print("writing", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with draft(path) as place:
        place.write_text("new")
        place.with_suffix(".idx").write_text("index")
        assert place.name == "a.txt" and path.read_text() == "old"
        assert len(names(tmp_path)) == 3
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.idx", "a.txt"]


def test_a_folder_does_too(tmp_path):
    with draft(tmp_path / "set") as place:
        (place / "images").mkdir(parents=True)
        assert not (tmp_path / "set").exists()
    assert names(tmp_path / "set") == ["images"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, LabelError])
def test_what_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail():
        with draft(path) as place:
            place.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_what_cannot_be_written_is_named(tmp_path):
    absent = pytest.raises(OutputError, match=r"a\.txt: no folder .*expected it to exist")
    with absent, draft(tmp_path / "none" / "a.txt"):
        pass
    failing = pytest.raises(OutputError, match=r"a\.txt: No such file.*expected to be written")
    with failing, draft(tmp_path / "a.txt") as place:
        (place / "nowhere").touch()
    assert names(tmp_path) == []


def test_drafts_of_the_dead_are_removed_and_those_of_the_living_left(tmp_path):
    path = tmp_path / "a[1].txt"
    command = [sys.executable, "-c", HOLDER, str(path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as dead, subprocess.Popen(command, **pipes) as living:
        assert dead.stdout.readline() == living.stdout.readline() == b"writing\n"
        assert len(names(tmp_path)) == 4
        dead.kill()
        dead.wait()
        with draft(path) as place:
            place.write_text("ours")
        assert len(names(tmp_path)) == 3
        assert path.read_text() == "ours"
        living.stdin.close()
        assert living.wait() == 0
    assert path.read_text() == "theirs" and names(tmp_path) == ["a[1].txt"]


def test_an_interruption_while_the_command_is_loaded_is_quiet(monkeypatch):
    class Interrupted:
        def find_spec(self, name, *_):
            if name == "geosam.cli":
                raise KeyboardInterrupt

    for name in [name for name in sys.modules if name.startswith("geosam.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
