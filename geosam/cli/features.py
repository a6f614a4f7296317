"""Commands about rasters and their features: info, mosaic, encode, check."""

from collections.abc import Sequence
from pathlib import Path

import click

from geosam import verbs
from geosam.automatic.forecast import ObjectsForecast, forecast_objects
from geosam.cli.interruption import NOTHING, TILES, interruptible
from geosam.cli.shared import (
    ModelChoice,
    ProgressLine,
    bands_option,
    dask_option,
    data_errors,
    json_option,
    model_options,
    raster_argument,
    report,
    scales_option,
)
from geosam.forecast import forecast
from geosam.recipe import Stretch
from geosam.scene import Scene
from geosam.workers import connected
from tiles import FeatureStore, Raster, write_mosaic


@click.command()
@raster_argument
@model_options
@bands_option
@json_option
@interruptible(NOTHING)
@data_errors
def info(raster: str, chosen: ModelChoice, bands: Sequence[int] | None, *, as_json: bool) -> None:
    """Say what RASTER is and what geosam would take for it.

    Time and disk are measured on some tiles of this raster, which takes half a minute or so. Those
    of `everything` and `everything --coverage` are for all options left as they are: seconds with
    encoding, and megabytes of work folder and GeoPackage, without features.

    \b
    Examples:
      geosam info ortho.tif
      geosam info /vsicurl/https://example.com/cog.tif --json
    """
    model = chosen.load()
    with Raster.open(raster) as opened:
        stretch = Stretch.of(opened, bands)
        expected = forecast(model, opened, stretch)
        objects, covering = forecast_objects(model, opened, expected, bands)
        x_m, y_m = opened.frame.pixel_size_m
        report(
            {
                "raster": raster,
                "size_px": list(reversed(opened.frame.shape)),
                "pixel_m": [round(x_m, 4), round(y_m, 4)],
                "crs": opened.frame.crs.to_string(),
                "bounds": [round(edge, 6) for edge in opened.frame.bounds],
                "bands": opened.count,
                "type": opened.dtype.name,
                "nodata": opened.nodata,
                "colors": list(opened.colors),
                "overviews": list(opened.overviews),
                "fingerprint": opened.fingerprint,
                "model": model.id,
                "device": model.device,
                "precision": model.precision,
                "model_bands": list(stretch.bands),
                "stretch": [[round(v, 6) for v in ends] for ends in (stretch.low, stretch.high)],
                "tiles_by_scale": {f"{scale:g}": n for scale, n in expected.tiles.items()},
                "encode_s": float(f"{expected.seconds:.2g}"),
                "encode_mb": float(f"{expected.megabytes:.2g}"),
                **_of_objects("everything", objects),
                **_of_objects("coverage", covering),
            },
            as_json=as_json,
        )


def _of_objects(name: str, expected: ObjectsForecast) -> dict[str, float]:
    return {
        f"{name}_objects": int(float(f"{expected.objects:.2g}")),
        f"{name}_s": float(f"{expected.seconds:.2g}"),
        f"{name}_mb": float(f"{expected.megabytes:.2g}"),
    }


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.argument("rasters", type=str, nargs=-1, required=True)
@data_errors
def mosaic(output: Path, rasters: Sequence[str]) -> None:
    """Make many RASTERS on one grid one raster, OUTPUT, a .vrt file.

    It names the rasters and holds no pixels, so it takes no time and no room. Where they overlap
    the later one is seen. CRS, pixel size, bands and nodata must be the same. Overviews that all
    rasters have are used, where their pixels fit together.

    \b
    Examples:
      geosam mosaic county.vrt tiles/*.tif
      geosam everything county.vrt -o objects.gpkg
    """
    write_mosaic(output, rasters)
    click.echo(str(output))


@click.command()
@raster_argument
@click.option("-o", "--output", "store", help="The feature store. Default: beside the raster.")
@model_options
@scales_option
@bands_option
@dask_option
@json_option
@interruptible(TILES)
@data_errors
def encode(
    raster: str,
    store: str | None,
    chosen: ModelChoice,
    scales: Sequence[float] | None,
    bands: Sequence[int] | None,
    cluster: str | None,
    *,
    as_json: bool,
) -> None:
    """Encode RASTER once into a feature store.

    The same line again goes on where it stopped, or says what differs.

    \b
    Examples:
      geosam encode ortho.tif
      geosam encode ortho.tif -o ortho.features.zarr --scales 1,4
      geosam encode sentinel.tif --bands 4,3,2
      geosam encode ortho.tif --dask tcp://10.0.0.5:8786
    """
    model = chosen.load()
    with connected(cluster) as client, ProgressLine("encoding tile") as progress:
        made = verbs.encode(
            model, raster, store, scales=scales, bands=bands, client=client, progress=progress
        )
    report({"store": made.path, "tiles": _counts(made)}, as_json=as_json)


@click.command()
@click.argument("store", type=str)
@click.option("--raster", help="Also check that the features are of this raster.")
@click.option("--repair", is_flag=True, help="Encode damaged tiles again.")
@model_options
@json_option
@interruptible("sound tiles are kept, and `geosam encode` makes those that are missing")
@data_errors
def check(
    store: str, raster: str | None, chosen: ModelChoice, *, repair: bool, as_json: bool
) -> None:
    """Check that a feature store is sound.

    Reads the whole of STORE; with --raster, also checks that it was made from that one.

    Exits with 1 if a tile is damaged and was not repaired.

    \b
    Examples:
      geosam check ortho.features.zarr
      geosam check ortho.features.zarr --raster ortho.tif --repair
    """
    features = FeatureStore.open(store)
    with ProgressLine("checking tile") as progress:
        damaged = features.verify(progress)
    model = chosen.load() if repair or raster else None
    if model:
        scene = Scene.open(model, raster or store, store=store if raster else None)
        if repair:
            features.drop(damaged)
            scene.ensure(damaged)
    report(
        {
            "store": str(Path(store)),
            "made_with": features.meta["model"],
            "made_from": features.meta["source"],
            "tiles": _counts(features),
            "damaged": [str(tile) for tile in damaged],
            "repaired": repair,
        },
        as_json=as_json,
    )
    if damaged and not repair:
        raise click.ClickException(
            f"{store}: {len(damaged)} damaged tiles (expected none). Run again with --repair."
        )


def _counts(store: FeatureStore) -> dict[str, str]:
    counts = {grid.scale: len(grid) - len(store.missing(grid.scale)) for grid in store.grids}
    return {
        f"{grid.scale:g}": f"{counts[grid.scale]} of {len(grid)}"
        for grid in store.grids
        if counts[grid.scale]
    }
