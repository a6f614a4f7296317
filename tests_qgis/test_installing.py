"""The engine is installed from a folder of wheels; the wheel here is a tiny one of our own."""

import zipfile

import pytest
from geosam_qgis.discovery import find, program
from geosam_qgis.install_window import InstallWindow
from geosam_qgis.installing import Installation, proxy_address, qgis_proxy
from qgis.core import QgsNetworkAccessManager
from qgis.PyQt.QtNetwork import QNetworkProxy

NAME, INFO = "geosam_toolkit-9.0", "geosam_toolkit-9.0.dist-info"


@pytest.fixture
def wheels(tmp_path):
    folder = tmp_path / "my wheels"
    folder.mkdir()
    files = {
        "tiny_geosam.py": "def main():\n    print('geosam, version 9.0')\n",
        INFO + "/METADATA": "Metadata-Version: 2.1\nName: geosam-toolkit\nVersion: 9.0\n",
        INFO + "/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        INFO + "/entry_points.txt": "[console_scripts]\ngeosam = tiny_geosam:main\n",
    }  # fmt: skip
    record = "".join(name + ",,\n" for name in [*files, INFO + "/RECORD"])
    with zipfile.ZipFile(folder / (NAME + "-py3-none-any.whl"), "w") as wheel:
        for name, text in {**files, INFO + "/RECORD": record}.items():
            wheel.writestr(name, text)
    return folder


def ended(qtbot, installation):
    said = []
    installation.said.connect(said.append)
    with qtbot.waitSignal(installation.ended, timeout=60000) as blocker:
        installation.start()
    return (*blocker.args, said)


def test_the_window_installs_an_engine_that_is_then_found(qtbot, tmp_path, wheels):
    folder = tmp_path / "data" / "engine"
    window = InstallWindow(folder=str(folder))
    qtbot.addWidget(window)
    window.python.setFilePath("/usr/bin/python3")
    window.wheels.setFilePath(str(wheels))
    with qtbot.waitSignal(window.installed, timeout=60000):
        window.install.click()
        assert not window.install.isEnabled() and window.bar.maximum() == 0
    assert "geosam, version 9.0" in window.log.toPlainText()
    assert window.install.isEnabled() and window.bar.maximum() == 1
    assert find("", "", str(folder)).command == [program(str(folder), "geosam")]


def test_what_pip_says_is_told_and_nothing_is_left(qtbot, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    folder = tmp_path / "engine"
    worked, why, _said = ended(
        qtbot, Installation(str(folder), "/usr/bin/python3", wheels=str(empty))
    )
    assert not worked and "geosam-toolkit" in why
    assert not folder.exists()


def test_cancelling_ends_it_at_once_and_leaves_nothing(qtbot, tmp_path, wheels):
    folder = tmp_path / "engine"
    installation = Installation(str(folder), "/usr/bin/python3", wheels=str(wheels))
    installation.said.connect(
        lambda line: installation.cancel() if line.startswith("Making") else None
    )
    with qtbot.waitSignal(installation.ended, timeout=2000) as blocker:
        installation.start()
    assert blocker.args == [False, "Cancelled."]
    assert not folder.exists()


def test_cancelling_ends_the_children_too(qtbot, tmp_path, wheels):
    folder = tmp_path / "engine"
    installation = Installation(str(folder), "/usr/bin/python3", wheels=str(wheels))
    installation.start()
    made = folder / "lib"
    qtbot.waitUntil(lambda: any(made.rglob("pip/__init__.py")), timeout=20000)  # by the child
    with qtbot.waitSignal(installation.ended, timeout=2000):
        installation.cancel()
    qtbot.wait(500)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (None, "could not be started"),
        ("echo Python 3.9 is too old; exit 1", "Python 3.9 is too old"),
    ],
)
def test_a_python_that_will_not_do_is_told(qtbot, tmp_path, lines, why):
    python = tmp_path / "python"
    if lines:
        python.write_text("#!/bin/sh\n" + lines + "\n")
        python.chmod(0o755)
    worked, told, _said = ended(qtbot, Installation(str(tmp_path / "engine"), str(python)))
    assert not worked and why in told


def test_an_engine_that_was_there_stays_when_a_newer_one_fails(qtbot, tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    worked, _why, _said = ended(qtbot, Installation(str(folder), "/no/such/python"))
    assert not worked and folder.exists()


def test_index_and_proxy_reach_pip_but_not_the_command_line(qtbot, tmp_path, wheels):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $PIP_INDEX_URL $HTTPS_PROXY $PYTHONHOME; echo $@; exit 1\n")
    python.chmod(0o755)
    index, proxy = "https://me:word@example.org/simple", proxy_address("p.org", 80, "me", "a@b")
    _worked, _why, said = ended(
        qtbot, Installation(str(tmp_path / "engine"), str(python), index=index, proxy=proxy)
    )
    assert said[1] == index + " http://me:a%40b@p.org:80"
    assert "example.org" not in said[2]


def test_the_proxy_is_the_one_of_qgis(qgis_app):
    manager = QgsNetworkAccessManager.instance()
    before = manager.fallbackProxy()
    try:
        proxy = QNetworkProxy(QNetworkProxy.ProxyType.HttpProxy, "p.org", 3128, "me", "it")
        manager.setFallbackProxyAndExcludes(proxy, [], [])
        assert qgis_proxy() == "http://me:it@p.org:3128"
        manager.setFallbackProxyAndExcludes(QNetworkProxy(), [], [])
        assert qgis_proxy() == ""
    finally:
        manager.setFallbackProxyAndExcludes(before, [], [])
