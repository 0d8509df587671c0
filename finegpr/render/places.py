"""The recipes of the nine scenes."""

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Place:
    """The recipe of one scene: ground, what stands around at which distance (metres), and its colours (sRGB)."""

    ground: str
    ground_colour: RGB
    road_colour: RGB
    tile: float
    walls: tuple[RGB, ...]
    wall_distance: tuple[float, float]
    wall_height: tuple[float, float]
    windows: str
    trees: int
    tree_colour: RGB
    tree_distance: tuple[float, float]
    extras: str


PLACES: dict[str, Place] = {
    "urban1": Place(
        ground="road",
        ground_colour=(142, 140, 136),
        road_colour=(78, 78, 80),
        tile=0.9,
        walls=((128, 134, 142), (96, 106, 118), (158, 156, 150), (110, 96, 88)),
        wall_distance=(17, 30),
        wall_height=(9, 26),
        windows="office",
        trees=14,
        tree_colour=(66, 92, 50),
        tree_distance=(10, 17),
        extras="cars",
    ),
    "urban2": Place(
        ground="cobble",
        ground_colour=(132, 112, 96),
        road_colour=(112, 98, 88),
        tile=0.28,
        walls=((146, 78, 58), (164, 104, 78), (186, 152, 118), (120, 66, 54)),
        wall_distance=(12, 17),
        wall_height=(7, 12),
        windows="house",
        trees=0,
        tree_colour=(66, 92, 50),
        tree_distance=(9, 13),
        extras="lamps",
    ),
    "wild3": Place(
        ground="grass",
        ground_colour=(104, 128, 58),
        road_colour=(150, 126, 88),
        tile=0.0,
        walls=(),
        wall_distance=(0, 0),
        wall_height=(0, 0),
        windows="none",
        trees=26,
        tree_colour=(70, 102, 48),
        tree_distance=(12, 45),
        extras="hills",
    ),
    "urban4": Place(
        ground="tiles",
        ground_colour=(206, 192, 168),
        road_colour=(180, 160, 132),
        tile=1.4,
        walls=((212, 196, 164), (196, 180, 158), (226, 216, 196)),
        wall_distance=(20, 32),
        wall_height=(9, 15),
        windows="arcade",
        trees=14,
        tree_colour=(74, 110, 58),
        tree_distance=(10, 20),
        extras="planters",
    ),
    "wild5": Place(
        ground="sand",
        ground_colour=(206, 178, 126),
        road_colour=(190, 160, 112),
        tile=0.0,
        walls=(),
        wall_distance=(0, 0),
        wall_height=(0, 0),
        windows="none",
        trees=9,
        tree_colour=(112, 116, 64),
        tree_distance=(9, 30),
        extras="rocks",
    ),
    "urban6": Place(
        ground="lawn",
        ground_colour=(156, 152, 146),
        road_colour=(96, 96, 98),
        tile=1.2,
        walls=((214, 206, 190), (150, 172, 186), (196, 164, 132), (178, 190, 160)),
        wall_distance=(17, 24),
        wall_height=(4, 6.5),
        windows="house",
        trees=12,
        tree_colour=(62, 106, 48),
        tree_distance=(9, 20),
        extras="fence",
    ),
    "urban7": Place(
        ground="concrete",
        ground_colour=(146, 144, 138),
        road_colour=(120, 118, 114),
        tile=3.0,
        walls=((150, 62, 48), (52, 86, 124), (172, 140, 58), (110, 116, 114), (66, 104, 84)),
        wall_distance=(11, 22),
        wall_height=(3, 9),
        windows="ribs",
        trees=0,
        tree_colour=(66, 92, 50),
        tree_distance=(9, 13),
        extras="barrels",
    ),
    "wild8": Place(
        ground="forest",
        ground_colour=(92, 78, 50),
        road_colour=(124, 102, 72),
        tile=0.0,
        walls=(),
        wall_distance=(0, 0),
        wall_height=(0, 0),
        windows="none",
        trees=120,
        tree_colour=(44, 74, 36),
        tree_distance=(6, 40),
        extras="bushes",
    ),
    "urban9": Place(
        ground="tiles",
        ground_colour=(172, 134, 118),
        road_colour=(150, 112, 100),
        tile=0.6,
        walls=((72, 76, 84), (178, 64, 66), (60, 122, 128), (196, 168, 96), (108, 72, 118)),
        wall_distance=(13, 18),
        wall_height=(6, 11),
        windows="shops",
        trees=4,
        tree_colour=(66, 92, 50),
        tree_distance=(7, 10),
        extras="lamps",
    ),
}
