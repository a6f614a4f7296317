"""What the panel says, in the user's language."""

from qgis.PyQt.QtCore import QCoreApplication


def tr(text):
    """The text in the user's language."""
    return QCoreApplication.translate("geosam", text)


def duration(seconds):
    """Seconds as minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"


def outline_facts(polygon):
    """An outline in words: its area, its score, and what is wrong with it."""
    if polygon["geometry"] is None:
        if polygon["status"] == "outside":
            return tr("This is outside the raster.")
        return tr("Nothing found here.")
    area = polygon["area_m2"]
    size = f"{area:,.1f} m²" if area < 10000 else f"{area / 10000:,.2f} ha"
    words = [tr("{}, score {:.2f}").format(size, polygon["score"])]
    if polygon["status"] == "truncated":
        words.append(tr("The object goes on beyond what the model saw."))
    if polygon["status"] == "clipped":
        words.append(tr("Part of the prompt is outside the raster."))
    return ". ".join(words)
