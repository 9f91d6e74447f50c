"""Times tasks of `tasks.py` in turn in this process, and prints them as JSON.

python benchmarks/steps.py --images=12800 --rounds=7 kd kd_cached student_fit

Milliseconds per 128 images: of each task a list over the rounds. `keys.py` makes ratios of them.
"""

import argparse
import json
import tempfile

from tasks import Tasks
from timing import CLOCKS, alternate


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="methods of `Tasks`")
    parser.add_argument("--images", type=int, default=12_800, help="images in an epoch")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one to warm up")
    parser.add_argument("--teacher", default="tkd_teacher", help="a name in keras_tkd.models.MODELS")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="see `timing.CLOCKS`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        makes = Tasks(arguments.images, folder, arguments.teacher)
        measured = alternate({name: makes.make(name) for name in arguments.tasks}, arguments.rounds, arguments.clock)
    print(json.dumps({name: [round(value, 3) for value in values] for name, values in measured.items()}))


if __name__ == "__main__":
    main()
