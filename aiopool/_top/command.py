"""The command `python -m aiopool top` and its arguments."""

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .process import Process

EVERY = 1.0
"""Seconds between two snapshots."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("pid", type=_pid, metavar="PID", help="the process to inspect")
    parser.add_argument("--once", action="store_true", help="show one snapshot, and exit")
    parser.add_argument("--json", action="store_true", help="write each snapshot as a line of JSON")


def run(options: argparse.Namespace) -> int:
    """Show snapshots until interrupted, and return the exit code.

    :raises ModuleNotFoundError: a package of the extra `top` is not installed.
    """
    from .process import LookError, Process

    try:
        with Process(options.pid) as process:
            if options.json:
                _print_json(process, options)
            else:
                _show(process, options)
    except LookError as error:
        print(f"aiopool top: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass  # the usual way to end it
    except BrokenPipeError:
        # The reader has ended, as with `| head`. Without this the interpreter would report an error when it flushes
        # stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _print_json(process: "Process", options: argparse.Namespace) -> None:
    from .snapshot import snapshot

    while True:
        print(json.dumps(snapshot(process.pid, process.look()).as_plain()), flush=True)
        if options.once:
            return
        time.sleep(EVERY)


def _show(process: "Process", options: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.live import Live

    from .snapshot import snapshot
    from .tables import tables

    console = Console(highlight=False)
    now = snapshot(process.pid, process.look())
    if options.once:
        console.print(tables(now, None))
        return
    with Live(tables(now, None), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            time.sleep(EVERY)
            before, now = now, snapshot(process.pid, process.look())
            live.update(tables(now, before), refresh=True)


def _pid(text: str) -> int:
    pid = int(text) if text.isascii() and text.isdigit() else 0
    if not 0 < pid < 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a process id")
    return pid
