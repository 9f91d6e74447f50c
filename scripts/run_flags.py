"""From flags to a configuration: one flag for each field of a config, parsed before TensorFlow is imported."""

import dataclasses
import os
import re
import shlex
import signal
import sys

import early_signals
from absl import app, flags, logging

from keras_tkd.config import DistillConfig, get_default
from keras_tkd.config.fields import resolve_auto
from keras_tkd.config.flagfile import get_value_type
from keras_tkd.utils.native_output import hide_native_output

__all__ = [
    "define",
    "define_workdir",
    "import_commands",
    "is_chief",
    "read",
    "read_seeds",
    "read_shared",
    "run",
    "share_devices",
    "show",
    "show_comparison",
    "show_report",
]

# The flags defined through this module are the scripts' own: --help lists them.
flags.disclaim_key_flags()

_DEFINES = {
    bool: flags.DEFINE_boolean,
    float: flags.DEFINE_float,
    int: flags.DEFINE_integer,
    str: flags.DEFINE_string,
}


class _CompositionParser(flags.ArgumentParser):
    """Refuses, as absl does with a value that is none of an enumeration's, a text that is not composed of choices."""

    def __init__(self, check):
        super().__init__()
        self._check = check

    def parse(self, argument):
        self._check(argument)
        return argument


def define(config_class):
    """Defines a flag for every field of `config_class`."""
    for field in dataclasses.fields(config_class):
        kind, several = get_value_type(field)
        help_text, choices = field.metadata["help"], field.metadata["choices"]
        if several:
            flags.DEFINE_list(field.name, ",".join(map(str, field.default or ())) or None, help_text)
        elif field.metadata["composed_by"]:
            flags.DEFINE(_CompositionParser(field.metadata["composed_by"]), field.name, field.default, help_text)
        elif choices:
            flags.DEFINE_enum(field.name, field.default, list(choices), help_text)
        else:
            _DEFINES[kind](field.name, field.default, help_text)


def define_workdir():
    """Defines `--workdir` and `--existing`."""
    flags.DEFINE_string("workdir", None, "Folder of the run: models, results, logs.", required=True)
    flags.DEFINE_enum(
        "existing",
        "refuse",
        ["refuse", "continue", "overwrite"],
        "What to do if --workdir holds another experiment: refuse, keep what the changed flags do not concern, or "
        "remove it. The same experiment is taken up where it stopped, unless it is to be overwritten.",
    )


def read(config_class, **settled):
    """Returns the configuration that the parsed flags describe; a bad value ends the program with one sentence.

    Args:
        config_class: class of the configuration.
        settled: values of flags that count as given, in place of what they have.
    """
    values, typed = {}, _list_typed(sys.argv)
    given = {field.name for field in dataclasses.fields(config_class) if flags.FLAGS[field.name].present} | {*settled}
    for field in dataclasses.fields(config_class):
        kind, several = get_value_type(field)
        value = settled.get(field.name, flags.FLAGS[field.name].value)
        # A flagfile says how to train the teacher, for runs that are given none.
        others = field.metadata["yields_to"]
        if given & set(others) and field.metadata["unless"] not in given and field.name not in typed:
            given.discard(field.name)
            value = None
        # A flagfile takes back what another before it may have said.
        if value == [] and field.name not in typed:
            given.discard(field.name)
            value = None
        try:
            values[field.name] = value if not several or value is None else tuple(kind(item) for item in value)
        except ValueError as error:
            sys.exit(f"Error: --{field.name}: {error}")
    try:
        # What is not given is the very default, by which a run tells that it may choose.
        used = {k: v if v is not None and k in given else get_default(config_class, k) for k, v in values.items()}
        config = config_class(**used)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    # The configuration cannot tell a default that was typed from one that was not.
    for name in config.irrelevant_fields:
        if name in given:
            sys.exit(f"Error: {config.explain_refusal(name)}. Received: {name}={values[name]!r}")
    # Nor an empty list from none: an unset variable of the shell must not make another experiment.
    for name in given:
        if values[name] == ():
            sys.exit(f"Error: `{name}` must hold a value or more; leave it out for its default. Received: --{name}=")
    return config


def read_shared():
    """Returns the configuration of what all methods of --methods share: with the first of them that reads all of it."""
    names = dict.fromkeys(re.match(r"\w*", method.strip())[0] for method in flags.FLAGS.methods)
    refusals = []
    # The method that was given, or the default, comes last: it is passed over.
    for settled in (*({"method": name, "losses": None} for name in names), {}):
        try:
            config = read(DistillConfig, **settled)
        except SystemExit as refusal:
            refusals.append(refusal)
        else:
            _check_passed_over(config, names)
            return config
    raise refusals[0]


def _check_passed_over(config, names):
    """Ends the program where a flagfile says how to train a teacher, one is given, and a method would train its own."""
    fields = dataclasses.fields(config)
    methods = next(field.metadata["choices"] for field in fields if field.name == "method")
    for field in fields:
        flag = flags.FLAGS[field.name]
        if not (field.metadata["yields_to"] and flag.present and field.name in config.irrelevant_fields):
            continue
        for name in filter(methods.__contains__, names):
            # `teacher_path` is what another method reads.
            if field.name not in resolve_auto(config, method=name, losses=None).irrelevant_fields:
                given = next(other for other in field.metadata["yields_to"] if getattr(config, other, None))
                sys.exit(
                    f"Error: A flagfile's `{field.name}` is passed over where `{given}` is given, and {name} reads it. "
                    f"Received: {field.name}={flag.value!r}. Compare {name} by itself, without --{given}, or take a "
                    "flagfile that does not say it"
                )


def _list_typed(arguments):
    """Returns the names of the flags on the command line itself, those of its flagfiles left out."""
    return {argument.lstrip("-").partition("=")[0] for argument in arguments[1:] if argument.startswith("-")}


def _check_flagfiles(arguments, inside=()):
    """Ends the program with one sentence for a flagfile that cannot be read; absl would end it with a traceback.

    Args:
        arguments: list of command line arguments, or the lines of a flagfile.
        inside: paths of the flagfiles that hold these lines.
    """
    for place, argument in enumerate(arguments):
        name, equals, path = argument.strip().partition("=")
        if name not in ("--flagfile", "-flagfile"):
            continue
        path = os.path.expanduser(path.strip() if equals else "".join(arguments[place + 1 : place + 2]))
        if path in inside:
            sys.exit(f"Error: A flagfile must not hold itself. Received: {' in '.join((path, *reversed(inside)))}")
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            if "\0" in text or text.startswith("\ufeff"):
                raise ValueError("it holds bytes that are no text, or begins with a byte order mark")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            rule = "--flagfile must be a text file (UTF-8) of lines --name=value"
            sys.exit(f"Error: {rule}. Received: {path!r}, which cannot be read: {reason}")
        _check_flagfiles(text.splitlines(), (*inside, path))


def _parse(arguments):
    _check_flagfiles(arguments[1:])
    return app.parse_flags_with_usage(arguments)


def run(main):
    """Runs `main()` under absl; stray words and bad input end with one sentence, not with a traceback."""

    def checked(argv):
        if len(argv) > 1:
            sys.exit(f"Error: all settings are flags (--name=value). Received the stray words: {' '.join(argv[1:])}")
        logging.set_verbosity(logging.ERROR)
        try:
            main()
        except KeyboardInterrupt as interruption:
            # As a shell counts: 128 and the number of the signal.
            number = getattr(interruption, "signal", signal.SIGINT)
            print(f"\nInterrupted ({number.name}). What is saved is whole: run the same command again to go on.")
            sys.exit(128 + number)
        except (ValueError, OSError, FloatingPointError) as error:
            # What a user can mend is one sentence; what is a fault of ours keeps its traceback.
            if os.environ.get("KERAS_TKD_TRACEBACK"):
                raise
            sys.exit(f"Error: {error}")

    app.run(checked, flags_parser=_parse)


class _Termination(KeyboardInterrupt):
    """SIGTERM, by which batch systems ask a process to end before they kill it."""

    signal = signal.SIGTERM


def _end(number, frame):
    raise _Termination


def share_devices(parallel):
    """Has this process leave room on a GPU for those beside it; to be called before TensorFlow is imported."""
    if parallel > 1:
        # It looks at the models, or trains the teacher, before the others train theirs.
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def import_commands(deterministic=False, distribution="none"):
    """Imports `keras_tkd.runs.commands`, and TensorFlow with it, without its start-up lines.

    Args:
        deterministic: as in `keras_tkd.runs.devices.start_devices`.
        distribution: the configuration's. A worker of several finds the others here, before anything is computed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Where a processor has AVX2 alone TensorFlow leaves oneDNN off, though it trains 1.3 to 1.6 times faster there; and
    # machines agree more closely where all use it. TensorFlow reads the variable when it is imported.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with hide_native_output():
        from keras_tkd.runs import cluster, commands, devices

        if distribution != "multi_worker":
            devices.start_devices(deterministic)
    if distribution == "multi_worker":
        cluster.connect(distribution)
    # From here on there is something to be finished, or to be said.
    early_signals.hand_over(SIGINT=signal.default_int_handler, SIGTERM=_end)
    return commands


def is_chief(config):
    """Returns whether this process has the results of a run to show: of several workers, the first."""
    from keras_tkd.runs.cluster import connect

    return connect(config.distribution).is_chief


def show(runs, workdirs):
    """Prints the tables of finished runs, the verdict, and what to do next."""
    from keras_tkd.reports import tables, verdict

    print("", tables.format_table(runs), sep="\n")
    # Of a file that somebody else wrote, either may be left out.
    if any(run.get("student") and run.get("teacher") for run in runs):
        print(verdict.format_verdict(runs))
    balance = tables.format_balance(runs)
    if balance:
        print(balance)
    verified = tables.format_verification_table(runs)
    if verified:
        print("", verified, sep="\n")
    tensorboard, logs = os.path.join(os.path.dirname(sys.executable), "tensorboard"), os.path.join(workdirs[0], "logs")
    print(f"\nCurves    {shlex.quote(tensorboard)} --logdir={shlex.quote(logs)}" if os.path.isdir(logs) else "")
    for name in ("student.keras", "teacher.keras"):
        path = os.path.join(workdirs[0], name)
        if os.path.exists(path):
            print(f"{name.removesuffix('.keras').capitalize():10}{path}")


def show_report(workdir):
    """Draws the report of a finished run or comparison, and prints where it is; without the extra, how to get it."""
    from keras_tkd.runs.reporting import write_report

    try:
        path = write_report(workdir)
    except (ValueError, OSError) as error:
        # What was trained is there, and shown above: a page that cannot be drawn, or written where the folder is
        # read-only by now, is no failure of the run.
        path = f"not drawn: {error}"
    print(f"Report    {path}")


def read_seeds():
    """Returns the numbers of `--seeds`; ends the program with a sentence where one is none."""
    try:
        return [int(seed) for seed in flags.FLAGS.seeds]
    except ValueError as error:
        sys.exit(f"Error: --seeds: {error}")


def show_comparison(comparison, workdir):
    """Prints the table of a comparison, its verdicts and its files; ends the program with 1 where runs failed."""
    from keras_tkd.reports.comparison_tables import describe_comparison, format_comparison_table
    from keras_tkd.runs import layout, sweep

    print("", format_comparison_table(comparison), sep="\n")
    print("", *describe_comparison(comparison), sep="\n")
    files = [os.path.join(workdir, name) for name in (layout.COMPARISON, sweep.TABLE, sweep.MARKDOWN)]
    print(f"\nFiles     {'  '.join(files)}")
    show_report(workdir)
    if any(run.status == "failed" for run in comparison.runs):
        sys.exit("Error: some runs failed. The same command tries them again")
