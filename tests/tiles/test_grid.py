import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiles import Tile, TileGrid, Window


@st.composite
def grids(draw):
    scale = draw(st.sampled_from([0.25, 1 / 3, 0.5, 1, 2, 3, 4]))
    step = max(1, round(1 / scale))
    size = step * draw(st.integers(3, 12))
    overlap = step * draw(st.integers(0, size // step - 1))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    anchor = draw(st.tuples(st.integers(-200, 200), st.integers(-200, 200)))
    return TileGrid(shape, size, overlap, scale, anchor)


def test_the_last_tile_reaches_beyond_the_raster_and_cores_are_cut_midway():
    grid = TileGrid((10, 25), size=10, overlap=4)
    assert (grid.rows, grid.cols, len(grid)) == (1, 4, 4)
    assert [(tile.read.col, tile.read.right) for tile in grid] == [
        (0, 10), (6, 16), (12, 22), (18, 28),
    ]  # fmt: skip
    assert [(tile.core.col, tile.core.right) for tile in grid] == [
        (0, 8), (8, 14), (14, 20), (20, 25),
    ]  # fmt: skip


def test_tiles_are_counted_from_the_anchor():
    grid = TileGrid((30, 25), size=10, overlap=4, anchor=(62, -1))
    assert [(tile.read.col, tile.read.right) for tile in grid if tile.index[0] == 0] == [
        (-4, 6), (2, 12), (8, 18), (14, 24), (20, 30),
    ]  # fmt: skip
    assert [tile.read.row for tile in grid if tile.index[1] == 0] == [-1, 5, 11, 17, 23]


def test_a_coarse_grid_has_its_anchor_to_the_raster_pixel():
    grid = TileGrid((9, 21), size=4, overlap=0, scale=2, anchor=(3, 8))
    assert [(tile.read.col, tile.read.right) for tile in grid if tile.index[0] == 0] == [
        (-5, 3), (3, 11), (11, 19), (19, 27),
    ]  # fmt: skip
    assert grid[0, 2].shape == (4, 4)
    assert grid[1, 0].read == Window(-5, 8, 8, 8)


def test_a_fine_grid_reads_fewer_raster_pixels_than_a_tile_has():
    grid = TileGrid((8, 8), size=8, overlap=4, scale=0.5)
    assert grid[1, 1] == Tile((1, 1), 0.5, read=Window(2, 2, 4, 4), core=Window(3, 3, 2, 2))
    assert grid[1, 1].shape == (8, 8)


@pytest.mark.parametrize(
    ("anchor", "start"), [(0, 0), (896, 0), (-100, 100), (-800, 352), (-801, 353), (1, 223)]
)
def test_a_raster_that_fits_a_tile_is_one_tile_as_near_to_the_lattice_as_it_may(anchor, start):
    (tile,) = TileGrid((600, 20), anchor=(0, anchor))
    assert tile.read == Window(0, -start, 1024, 1024)
    assert tile.core == Window(0, 0, 20, 600)
    assert tile.shape == (1024, 1024)


@given(grids())
def test_cores_partition_the_raster(grid):
    owners = np.zeros(grid.shape, int)
    for tile in grid:
        owners[tile.core.slices()] += 1
    assert (owners == 1).all()


@given(grids())
def test_a_core_has_its_context_inside_the_raster(grid):
    raster = Window(0, 0, *reversed(grid.shape))
    context = math.floor(grid.overlap / 2 * min(grid.scale, 1)) * max(grid.scale, 1)
    for tile in grid:
        read, core = tile.read, tile.core
        assert raster.contains(core) and read.contains(core)
        assert read.col <= 0 or core.col - read.col >= context
        assert read.row <= 0 or core.row - read.row >= context
        assert read.right >= raster.right or read.right - core.right >= context
        assert read.bottom >= raster.bottom or read.bottom - core.bottom >= context


@given(grids(), st.data())
def test_a_clip_has_the_tiles_of_the_raster(grid, data):
    height, width = grid.shape
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right = data.draw(st.integers(left + 1, width))
    bottom = data.draw(st.integers(top + 1, height))
    anchor = (grid.anchor[0] - left, grid.anchor[1] - top)
    clip = TileGrid((bottom - top, right - left), grid.size, grid.overlap, grid.scale, anchor)
    rows, cols = ({tile.index[axis] for tile in clip} for axis in (0, 1))
    if len(rows) > 1 and len(cols) > 1:
        reads = {(tile.read.col, tile.read.row) for tile in grid}
        assert {(t.read.col + left, t.read.row + top) for t in clip} <= reads


@given(grids())
def test_neighbours_are_a_stride_apart_and_none_is_off_the_raster(grid):
    raster = Window(0, 0, *reversed(grid.shape))
    stride = round((grid.size - grid.overlap) * grid.scale)
    first = grid[0, 0].read
    for tile in grid:
        row, col = tile.index
        assert (tile.read.col - first.col, tile.read.row - first.row) == (
            col * stride, row * stride,
        )  # fmt: skip
        assert tile.read & raster and tile.shape == (grid.size, grid.size)


@given(grids())
def test_iteration_and_indexing_agree(grid):
    tiles = list(grid)
    assert len(tiles) == len(grid)
    assert [tile.index for tile in tiles] == list(np.ndindex(grid.rows, grid.cols))
    assert all(grid[tile.index] == tile for tile in tiles)
    assert TileGrid.from_dict(grid.to_dict()) == grid


@given(grids())
def test_the_tile_located_round_a_core_centre_sees_it(grid):
    for tile in grid:
        x, y = tile.core.col + tile.core.width / 2, tile.core.row + tile.core.height / 2
        read = grid.locate((x, y, x, y)).read
        assert read.col <= x <= read.right and read.row <= y <= read.bottom


@given(grids(), st.lists(st.floats(-80, 150), min_size=4, max_size=4))
def test_locate_is_the_best_of_all_tiles(grid, edges):
    (xmin, xmax), (ymin, ymax) = sorted(edges[:2]), sorted(edges[2:])
    height, width = grid.shape

    def margins(tile):
        read = tile.read
        left = xmin - read.col if read.col > 0 else math.inf
        top = ymin - read.row if read.row > 0 else math.inf
        right = read.right - xmax if read.right < width else math.inf
        bottom = read.bottom - ymax if read.bottom < height else math.inf
        return min(top, bottom), min(left, right)

    vertical, horizontal = zip(*map(margins, grid), strict=True)
    best = list(zip(vertical, horizontal, strict=True)).index((max(vertical), max(horizontal)))
    assert grid.locate((xmin, ymin, xmax, ymax)) == list(grid)[best]


def test_locate_does_not_scan_the_grid():
    grid = TileGrid((10_000_000, 10_000_000), size=1024, overlap=128)
    tile = grid.locate((5_000_000, 9_999_990, 5_000_010, 10_000_000))
    assert tile.index == (grid.rows - 1, 5580)
    assert tile.read.contains(Window(5_000_000, 9_999_990, 10, 10))


@pytest.mark.parametrize("bounds", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, math.nan, 0)])
def test_locate_refuses_bounds_that_are_none(bounds):
    with pytest.raises(ValueError, match="expected finite"):
        TileGrid((10, 10)).locate(bounds)


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"shape": (0, 5)}, "shape"),
        ({"shape": (5, 5), "size": 8, "overlap": 8}, "overlap"),
        ({"shape": (5, 5), "size": 8, "overlap": -1}, "overlap"),
        ({"shape": (5, 5), "size": 8, "overlap": 1, "scale": 0.5}, "multiples of 2"),
        ({"shape": (5, 5), "scale": 1.5}, "whole number"),
        ({"shape": (5, 5), "scale": 0}, "whole number"),
        ({"shape": (5, 5), "scale": math.inf}, "whole number"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(grid, message):
    with pytest.raises(ValueError, match=message):
        TileGrid(**grid)


@pytest.mark.parametrize("index", [(-1, 0), (1, 0), (0, 2)])
def test_a_tile_beyond_the_grid_is_refused(index):
    with pytest.raises(IndexError, match="expected one of 1 x 2"):
        TileGrid((10, 20), size=10, overlap=0)[index]
