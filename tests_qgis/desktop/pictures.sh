#!/bin/sh
# The pictures of docs/qgis.md: runs the desktop test and makes its pictures small (needs ImageMagick).
# Usage: GEOSAM_ENGINE=... tests_qgis/desktop/pictures.sh PYTHON   (a Python with pytest and QGIS)
set -e
cd "$(dirname "$0")/../.."
shots=$(mktemp -d)
export QT_QPA_PLATFORM=offscreen  # of pytest; QGIS gets a screen of its own
GEOSAM_SHOTS="$shots" "${1:-.venv-qgis/bin/python}" -m pytest -s -c tests_qgis/pytest.ini tests_qgis/test_desktop.py
mkdir -p docs/qgis
for picture in "$shots"/*.png; do
    small="docs/qgis/$(basename "$picture")"
    for width in 1000 940 880; do
        convert "$picture" -resize "${width}x" +dither -colors 48 "PNG8:$small"
        [ "$(wc -c < "$small")" -gt 150000 ] || break
    done
done
rm -r "$shots"
