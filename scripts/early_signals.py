"""Signals that come before a script has begun: they end it with one line, and not with a traceback of its imports.

The scripts import this module first. It takes effect when it is imported, and until `hand_over` is called.
"""

import os
import signal
import sys
import threading

__all__ = ["hand_over", "leave"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = 0.05  # seconds until a signal that was lost is sent again


def leave(number, frame):
    """Ends the process, in which nothing has begun that could be lost."""
    # Not by an exception: libraries catch those that come while they are imported. The code is as a shell counts, 128
    # and the number.
    os.write(1, f"\nInterrupted ({signal.Signals(number).name}), before anything began.\n".encode())
    os._exit(128 + number)


def hand_over(**handlers):
    """Lets others act on signals from now on; what they raise is not lost.

    Python prints what a signal's handler raises, and goes on, where it comes in a `__del__` or in a callback of the
    garbage collector, of which TensorFlow has many. Such a signal is sent again.

    Args:
        **handlers: what `signal.signal` takes, by the signals' names. What somebody has set since stays.
    """
    for name, handler in handlers.items():
        number = signal.Signals[name]
        if signal.getsignal(number) is leave:
            signal.signal(number, handler)
    sys.unraisablehook = _send_again


def _send_again(unraisable):
    """Sends the signal again whose exception Python is about to ignore; what else it ignores is printed as ever."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        return sys.__unraisablehook__(unraisable)
    number = getattr(unraisable.exc_value, "signal", signal.SIGINT)
    # In a moment: here it would be lost again.
    timer = threading.Timer(_AGAIN, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()


# What is ignored (`nohup`, a background job of a script) stays ignored.
for _number in _SIGNALS:
    if signal.getsignal(_number) in (signal.default_int_handler, signal.SIG_DFL):
        signal.signal(_number, leave)
