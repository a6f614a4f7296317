"""Which command starts the engine; no QGIS is needed to find out."""

from pathlib import Path

from geosam_qgis.discovery import Found, find, program, pythons


def installed(folder):
    path = Path(program(str(folder), "geosam"))
    path.parent.mkdir(parents=True)
    path.touch()
    return str(path)


def test_what_the_user_says_comes_first(tmp_path):
    path = installed(tmp_path)
    assert find("a", "b", str(tmp_path), "/bin/geosam") == Found(["a"], "variable")
    assert find(None, "b", str(tmp_path), "/bin/geosam") == Found(["b"], "setting")
    assert find(None, "", str(tmp_path), "/bin/geosam") == Found([path], "installed")
    assert find("", "", str(tmp_path / "no"), "/bin/geosam") == Found(["/bin/geosam"], "path")
    assert find("", "", str(tmp_path / "no"), None) is None


def test_a_path_may_have_spaces_and_a_command_words(tmp_path):
    path = tmp_path / "my geosam"
    path.touch()
    assert find(str(path), "", "", None).command == [str(path)]
    line = f"/usr/bin/python3 -m geosam '{path}'"
    assert find(line, "", "", None).command == ["/usr/bin/python3", "-m", "geosam", str(path)]


def test_qgis_itself_is_no_python(tmp_path):
    (tmp_path / "bin").mkdir()
    own = tmp_path / "bin" / "python3"
    own.touch()
    none = {}.get
    assert pythons("/Apps/QGIS", str(tmp_path), (3, 12, 1), none) == [str(own)]
    assert pythons(str(own), str(tmp_path), (3, 12, 1), none) == [str(own)]


def test_an_old_python_of_qgis_is_passed_over(tmp_path):
    (tmp_path / "bin").mkdir()
    own = tmp_path / "bin" / "python3"
    own.touch()
    newer = {"python3.12": "/opt/python3.12", "python3": "/opt/python3.12"}.get
    assert pythons(str(own), str(tmp_path), (3, 9, 5), newer) == ["/opt/python3.12"]
    assert pythons(str(own), str(tmp_path), (3, 11, 0), newer) == [str(own), "/opt/python3.12"]
