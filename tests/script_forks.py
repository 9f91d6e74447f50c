"""The scripts in forks of a process that has imported TensorFlow already: a command begins at once.

Not for what a process says or does while it imports; there the scripts are run as a user runs them.

    python script_forks.py      reads [script, arguments, folder] from each line, writes [exit code, output, errors]
"""

import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import traceback

SCRIPTS = pathlib.Path(__file__).parents[1] / "scripts"


class ScriptForks:
    """Runs scripts one after another, as `subprocess.run` would; a context that ends the process behind it."""

    def __enter__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([sys.executable, __file__], text=True, **pipes)
        return self

    def __exit__(self, *_):
        # At the end of its input it ends.
        self._process.communicate()

    def run(self, script, *arguments, cwd):
        command = [script, [str(argument) for argument in arguments], str(cwd)]
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return subprocess.CompletedProcess(command, *json.loads(self._process.stdout.readline()))


def run_script(script, arguments, folder, output, errors):
    """Becomes the script, and ends with it."""
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    path = str(SCRIPTS / f"{script}.py")
    sys.argv, code = [path, *arguments], 0
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        # As Python itself ends.
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = 1 if isinstance(end.code, str) else end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main():
    sys.path.insert(0, str(SCRIPTS))
    # Imported, and nothing run: a fork would not have TensorFlow's threads.
    import keras_tkd.export
    import keras_tkd.runs.commands  # noqa: F401

    for line in sys.stdin:
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            child = os.fork()
            if not child:
                run_script(*json.loads(line), output, errors)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said = [file.seek(0) or file.read() for file in (output, errors)]
        print(json.dumps([code, *said]), flush=True)


if __name__ == "__main__":
    main()
