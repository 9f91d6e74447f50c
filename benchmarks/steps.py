"""Times tasks of `tasks.py` in turn in this process, and prints them as JSON.

python benchmarks/steps.py --images=12800 --rounds=7 kd kd_cached student_fit

Milliseconds per 128 images: of each task a list over the rounds. `keys.py` makes ratios of them.
"""

import argparse
import json
import sys
import tempfile

from tasks import DONE, Tasks
from timing import CLOCKS, alternate

from keras_tkd.runs import devices


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", help="methods of `Tasks`")
    parser.add_argument("--images", type=int, default=12_800, help="images in an epoch")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one to warm up")
    parser.add_argument("--teacher", default="tkd_teacher", help="a name in keras_tkd.models.MODELS")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="see `timing.CLOCKS`")
    parser.add_argument("--deterministic", action="store_true", help="as the flag of the scripts")
    parser.add_argument(
        "--on_request", action="store_true", help="time nothing: run the tasks once for each line of the input"
    )
    arguments = parser.parse_args()
    devices.start_devices(arguments.deterministic)
    with tempfile.TemporaryDirectory() as folder:
        makes = Tasks(arguments.images, folder, arguments.teacher)
        tasks = {name: makes.make(name) for name in arguments.tasks}
        if arguments.on_request:
            for _ in sys.stdin:
                for task in tasks.values():
                    task.run()
                print(DONE, flush=True)
            return
        measured = alternate(tasks, arguments.rounds, arguments.clock)
    print(json.dumps({name: [round(value, 3) for value in values] for name, values in measured.items()}))


if __name__ == "__main__":
    main()
