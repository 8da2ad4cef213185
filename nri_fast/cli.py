"""The command line: ``nri-fast``, or ``python -m nri_fast``.

Exit codes: 0 done; 1 training diverged; 2 something that the user can put right (said in one line on stderr);
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from nri_fast.commands import convert, experiment, forecast, infer, look, report, simulate, teach, train, unseen
from nri_fast.commands.experiment import Experiment
from nri_fast.commands.teach import Teach
from nri_fast.commands.train import Train
from nri_fast.commands.unseen import Unseen

SUBJECTS = (simulate, convert, train, infer, forecast, report, unseen, teach, experiment, look)
DONE, DIVERGED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


def _commands(in_full: bool) -> Any:
    """All commands as tyro wants them, described in full or in one sentence each."""
    commands: Any = None
    for subject in SUBJECTS:
        for command, examples in subject.EXAMPLES.items():
            description = " ".join((command.__doc__ or "").split()) + ("\n" + examples if in_full else "")
            named = Annotated[command, tyro.conf.subcommand(command.__name__.lower(), description=description)]  # type: ignore[valid-type]
            commands = named if commands is None else commands | named
    return commands


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; the process's own if not given.

    Returns
    -------
    int
        Exit code. Arguments that cannot be parsed end in SystemExit with code 2.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = tyro.cli(
        _commands(in_full=arguments[:1] not in ([], ["-h"], ["--help"])),
        prog="nri-fast",
        description="Who acts on whom, and how, from trajectories alone. COMMAND --help tells more.",
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
    )
    from nri_fast.checkpoint import CheckpointError
    from nri_fast.learner import DivergedError

    try:
        command.run()
    except KeyboardInterrupt:
        how_to_go_on = ""
        if isinstance(command, Train):
            how_to_go_on = "; to go on: nri-fast train --resume --out RUN"
        elif isinstance(command, Experiment | Teach | Unseen):
            how_to_go_on = "; to go on: the same command with --resume"
        return _complain(f"interrupted{how_to_go_on}", INTERRUPTED)
    except DivergedError as error:
        return _complain(str(error), DIVERGED)
    except (OSError, ValueError, CheckpointError) as error:
        return _complain(str(error), USER_ERROR)
    return DONE


def _complain(problem: str, code: int) -> int:
    print(f"nri-fast: {' '.join(problem.split())}", file=sys.stderr)
    return code
