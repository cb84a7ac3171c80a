"""The child processes of the command line."""

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from aiopool._child_process import child_process

ENDLESS = [sys.executable, "-c", "import threading; threading.Event().wait()"]


def test_it_has_ended_after_the_block() -> None:
    with pytest.raises(ZeroDivisionError), child_process(ENDLESS) as process:
        _ = 1 // 0
    assert process.returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot block Ctrl-C")
def test_ctrl_c_during_the_start(monkeypatch: pytest.MonkeyPatch, listening_to_ctrl_c: None) -> None:
    """It is not lost, and the process has ended."""
    started = []

    class Interrupted(subprocess.Popen[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            assert sys.platform != "win32"
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt), child_process(ENDLESS):
        raise AssertionError("unreachable")
    assert started[0].returncode is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot block Ctrl-C")
def test_ctrl_c_is_received_again_if_there_is_no_such_program(tmp_path: Path, listening_to_ctrl_c: None) -> None:
    with pytest.raises(FileNotFoundError), child_process([str(tmp_path / "missing")]):
        raise AssertionError("unreachable")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
