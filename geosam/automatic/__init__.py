"""Every object of a scene, without being asked for any of them.

::

    lattice.py     where each tile is prompted
    candidates.py  a tile's points -> its masks: filtered, each object once
    tile_work.py   one tile from features to outlines, in a file of the work folder
    objects.py     objects as arrays, and their files
    stitching.py   objects cut by tiles' edges -> whole ones
    sweep.py       the objects of all tiles and scales, each once, from the top down
    painting.py    objects -> label raster, with or without gaps
    run.py         `geosam.everything`

Coordinates are raster pixels until the very end, so that nothing is rounded twice.
"""
