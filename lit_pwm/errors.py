"""The exceptions a user of lit_pwm meets, and the words they share.

Every message is one paragraph: what was read (file, key, option), what was found, what is accepted, what to do. The
command line prints it without a traceback and exits with the class's `exit_code`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LitPWMError(Exception):
    """Bad input: a file, a field or an option that the user can mend."""

    exit_code = 2


class NonFiniteLossError(LitPWMError):
    """A loss or a gradient norm stopped being finite; the batch that did it has been saved."""

    exit_code = 3


class RunStopped(SystemExit):
    """A signal asked the run to stop, and it has stopped: its last update is whole.

    A SystemExit, so that a script that does not catch it ends with the right exit code and without a traceback.

    Args:
        signum: the signal.

    Attributes:
        signum: the signal.
        code: 128 + the signal's number, as shells count; another one where the run is to be started again.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum


def did_you_mean(name: str, accepted: Iterable[str], shown: int = 12) -> str:
    """A sentence that names the accepted words nearest to `name`, or lists them where none is near."""
    accepted = list(accepted)
    folded: dict[str, str] = {}  # capitals make words look far apart
    for word in accepted:
        folded.setdefault(word.casefold(), word)
    near = [folded[word] for word in difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)]
    if near:
        return f"Did you mean {' or '.join(repr(word) for word in near)}?"
    if not accepted:
        return "There are none to choose from."
    listed = ", ".join(accepted[:shown])
    return f"Accepted: {listed}{', …' if len(accepted) > shown else ''}."


def escaped(text: str) -> str:
    """Text as a terminal may be shown it: what is in a file may hold characters that steer one, which are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
