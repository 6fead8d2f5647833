"""The command `lit-pwm`: finds the verb, runs it, and turns errors into one paragraph and an exit code."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
from typing import Any, NoReturn

import lit_pwm
from lit_pwm.cli import checkpoint, data, demo, evaluate, report, runs, sweep
from lit_pwm.cli.explain import explain
from lit_pwm.errors import LitPWMError, RunStopped, did_you_mean, escaped
from lit_pwm.runtime import run_signals
from lit_pwm.runtime.imports import current_folder_importable, importing
from lit_pwm.runtime.processes import follow_lifeline, keep_sockets_short, open_standard_streams
from lit_pwm.runtime.run_signals import ENDING
from lit_pwm.runtime.siblings import check_siblings
from lit_pwm.runtime.stopping import leave, stopping
from lit_pwm.runtime.supplied import WORLD_MODEL_OPTION, supplying_to_all

TRAINER_VERBS = {
    "fit": "train a world model or a policy",
    "validate": "run the validation of a checkpoint",
    "test": "run the test of a checkpoint",
}
INTERRUPTED = 130
IMPORT_HELP = "import this module first, so that checkpoints may name its components"
IGNORE_HELP = "pass over options of checkpoints that their class no longer has"
MODEL_HELP = "the world model of a policy's checkpoint that was saved without it"
STOPPED = tuple(128 + number for number in ENDING)


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing usage and exiting, so that every error looks the same; options are spelt in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but an option that this parser does not know is refused with those like it.

        Raises:
            LitPWMError: there is such an option.
        """
        found, rest = super().parse_known_args(args, namespace)
        if unknown := [word.partition("=")[0] for word in rest if word.startswith("-")]:
            known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
            self.error(f"there is no option {unknown[0]!r}. {did_you_mean(unknown[0].lstrip('-'), known)}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        sentence = f"{message[:1].upper()}{message[1:]}".rstrip(".?!")
        end = "?" if message.endswith("?") else "."
        raise LitPWMError(f"{sentence}{end} Run `{self.prog} --help` to see what is accepted.")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs but the Trainer's, which have their own (`lit_pwm.cli.trainer`)."""
    parser = _Parser(
        prog="lit-pwm",
        description="Pre-train latent world models on offline data of many control tasks, and learn policies in them.",
        epilog="Trainer verbs: "
        + "; ".join(f"{verb}: {what}" for verb, what in TRAINER_VERBS.items())
        + f". `lit-pwm fit --help` lists their options. All verbs take --debug, --import MODULE ({IMPORT_HELP}), "
        f"--ignore-options A,B ({IGNORE_HELP}) and {WORLD_MODEL_OPTION} FILE ({MODEL_HELP}).",
    )
    parser.add_argument("--version", action="version", version=f"lit-pwm {lit_pwm.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    data.add_collect_parser(verbs)
    data.add_data_parser(verbs)
    checkpoint.add_parser(verbs)
    evaluate.add_parser(verbs)
    demo.add_parser(verbs)
    sweep.add_parser(verbs)
    report.add_parser(verbs)
    runs.add_parser(verbs)
    for verb in verbs.choices.values():  # read by `run` before, for the Trainer's verbs too
        verb.add_argument("--import", metavar="MODULE", help=f"{IMPORT_HELP}; may be repeated")
        verb.add_argument("--ignore-options", metavar="A,B", help=IGNORE_HELP)
        verb.add_argument(WORLD_MODEL_OPTION, metavar="FILE", help=MODEL_HELP)
    return parser


def run(argv: list[str]) -> int:
    """Run one command line and return its exit code.

    0, 1 faults found, 2 bad input, 3 non-finite loss, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP. What is
    no fault of the user's keeps its traceback (`lit_pwm.cli.explain` says what that is), and Python's exit code 1.
    """
    debug = "--debug" in argv or bool(os.environ.get("LIT_PWM_DEBUG"))
    argv = [argument for argument in argv if argument != "--debug"]
    try:
        check_siblings()
        argv, modules = taken_out(argv, "--import")
        argv, ignored = taken_out(argv, "--ignore-options")
        argv, models = taken_out(argv, WORLD_MODEL_OPTION)
        if len(models) > 1:
            raise LitPWMError(f"The option {WORLD_MODEL_OPTION} is given {len(models)} times. Name one file.")
        options = [name for names in ignored for name in names.split(",")]
        with current_folder_importable(), importing(modules, options), supplying_to_all(*models or [None]):
            return _run_verb(argv)
    except LitPWMError as error:
        if debug:
            raise
        return fail(error)
    except RunStopped as stop:
        _say(f"Stopped by {signal.Signals(stop.signum).name}.")
        return int(stop.code or 0)
    except KeyboardInterrupt:
        _say("\nInterrupted.")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has closed it; nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if debug or (told := explain(error)) is None:
            raise
        return fail(told)


def _run_verb(argv: list[str]) -> int:
    follow_lifeline()
    keep_sockets_short()
    if argv and argv[0] in TRAINER_VERBS:
        with run_signals.catching_signals():
            # Imports lightning (3 s), which the other verbs do without where they can.
            from lit_pwm.cli import trainer

            return trainer.run(argv)
    parser = build_parser()
    if argv and not argv[0].startswith("-"):
        _check_verb(argv[0], parser)
    arguments = parser.parse_args(argv)
    with stopping():
        return arguments.run(arguments)


def taken_out(argv: list[str], option: str) -> tuple[list[str], list[str]]:
    """A command line without an option that all verbs take, and the values it was given.

    Raises:
        LitPWMError: the option stands without a value.
    """
    rest, values, awaited = [], [], False
    for argument in argv:
        if awaited or argument.startswith(f"{option}="):
            values.append(argument if awaited else argument.partition("=")[2])
            awaited = False
        elif argument == option:
            awaited = True
        else:
            rest.append(argument)
    if awaited or any(not value or value.startswith("-") for value in values):
        raise LitPWMError(f"The option {option} stands without a value. Write {option} NAME.")
    return rest, values


def fail(error: LitPWMError) -> int:
    """Print the error's paragraph to stderr and return its exit code."""
    text = textwrap.fill(
        escaped(" ".join(str(error).split())), width=100, break_long_words=False, break_on_hyphens=False
    )
    _say(f"error: {text}")
    return error.exit_code


def _say(text: str) -> None:
    """Print to stderr where that can be written to: a terminal that is gone, or a full disk, changes no exit code."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # or what is left in its buffer would fail once more at the end


def _check_verb(verb: str, parser: argparse.ArgumentParser) -> None:
    known = [*TRAINER_VERBS]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            known += list(action.choices)
    if verb not in known:
        raise LitPWMError(f"There is no command {verb!r}. {did_you_mean(verb, known)} See `lit-pwm --help`.")


def main() -> None:
    """The console script."""
    open_standard_streams()
    code = run(sys.argv[1:])
    # Loggers of a Trainer may still be sending at its end. At a stop they were told to finish, and only rank zero logs.
    leave(code, tidy=code not in STOPPED and run_signals.launcher() is None)
