"""What the plugin says is collected for translators."""

import xml.etree.ElementTree as ET

from tests.plugin.test_pack import script


def test_each_text_is_found_and_translations_are_kept(tmp_path):
    code = tmp_path / "code.py"
    code.write_text(
        'class A:\n    WORDS = ("name", "Title", "Help " "text")\n'
        'x = tr("one {}").format(1), tr("two"), tr("two"), tr(unknown)\n'
    )
    translations = script("translations")
    said = translations.texts(tmp_path)
    assert sorted(said) == ["Help text", "Title", "one {}", "two"]
    path = tmp_path / "geosam_de.ts"
    translations.update(path, "de", ["one {}", "gone"])
    root = ET.parse(path)
    root.find(".//translation").text = "eins {}"
    root.write(path)
    translations.update(path, "de", ["one {}", "new & <more>"])
    found = [
        (m.findtext("source"), m.findtext("translation")) for m in ET.parse(path).iter("message")
    ]
    assert found == [("one {}", "eins {}"), ("new & <more>", "")]


def test_the_plugin_says_enough():
    translations = script("translations")
    said = translations.texts(translations.PLUGIN)
    assert {"Encode", "Segment everything", "Install the engine..."} <= set(said)
