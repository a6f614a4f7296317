"""What the panel says, in the user's language."""

from qgis.PyQt.QtCore import QCoreApplication

LISTED = 4  # by name, in the panel


def tr(text):
    """The text in the user's language."""
    return QCoreApplication.translate("geosam", text)


def duration(seconds):
    """Seconds as minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"


def batch_facts(total, lacking):
    """What came of many outlines: how many there are, and which are not.

    Args:
        total: how many were asked for.
        lacking: the id and the reason of each that is not saved.
    """
    saved = total - len(lacking)
    words = [tr("{:,} of {:,} saved.").format(saved, total)]
    if saved:
        words.append(tr("Ctrl+Z takes them all back."))
    if lacking:
        some = "; ".join(f"{name or '-'}: {why}" for name, why in lacking[:LISTED])
        words.append(tr("Not saved: {}").format(some))
        if len(lacking) > LISTED:
            words.append(tr("and {:,} more, see the log.").format(len(lacking) - LISTED))
    return " ".join(words)


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
