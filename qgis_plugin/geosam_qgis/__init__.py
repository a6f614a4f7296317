"""geosam in QGIS: click on an object, see its outline, keep it."""


def classFactory(iface):  # QGIS's name
    """Called by QGIS when the plugin is loaded."""
    from .plugin import GeosamPlugin

    return GeosamPlugin(iface)
