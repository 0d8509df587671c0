"""Pictures per second on one core, with and without writing JPEG.

python tests/benchmarks/render_rate.py [--share 1.0]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from finegpr.attributes import ILLUMINATION, SCENE, WEATHER
from finegpr.render.camera import SOURCE_RIG
from finegpr.render.person import make_person
from finegpr.render.picture import Shot, render_one
from finegpr.render.scene import panorama
from finegpr.render.world import write_picture


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of 400, 150 and 60 pictures of the three sizes")
    given = parser.parse_args(arguments)
    start = time.process_time()
    for scene in SCENE.values:
        panorama(scene, 0, SOURCE_RIG.eye)
    print(f"nine panoramas: {time.process_time() - start:.1f} s of processor time, once per process")
    for height, width, most in ((128, 64, 400), (256, 128, 150), (480, 200, 60)):
        count = max(6, round(given.share * most))
        people = [make_person(0, "minigpr", 1 + k) for k in range(count)]
        shots = [
            Shot(
                viewpoint=float(70 * k % 360),
                weather=WEATHER.values[k % 7],
                illumination=ILLUMINATION.values[k // 7 % 7],
                scene=SCENE.values[k % 9],
                seed=(k,),
            )
            for k in range(count)
        ]
        render_one(people[0], shots[5], SOURCE_RIG, height=height, width=width)
        start = time.process_time()
        images = [
            render_one(person, shot, SOURCE_RIG, height=height, width=width)[0]
            for person, shot in zip(people, shots, strict=True)
        ]
        drawn = time.process_time() - start
        with tempfile.TemporaryDirectory() as folder:
            start = time.process_time()
            for k, image in enumerate(images):
                write_picture(Path(folder) / f"{k}.jpg", image, quality=92)
            written = time.process_time() - start
        print(f"{height}x{width}: {count / drawn:.0f} images/s, with JPEG {count / (drawn + written):.0f} images/s")


if __name__ == "__main__":
    main(sys.argv[1:])
