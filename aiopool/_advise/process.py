"""The process that measures.

It takes the user's code as JSON from stdin, and answers on stdout with a line of JSON for each step: the share that is
done, and at last what was measured or what is wrong. Whatever the user's code prints goes to stderr.
"""

import asyncio
import json
import os
import sys
from typing import Any

from .measure import measure
from .user_code import UserCode, UserCodeError


def main() -> None:
    """Measure, and answer."""
    task = json.load(sys.stdin)
    answers = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115 - open until the process ends
    os.dup2(2, 1)

    def answer(**line: Any) -> None:
        print(json.dumps(line), file=answers, flush=True)

    try:
        code = UserCode(**task["code"])
        measured = asyncio.run(measure(code, task["seconds"], lambda share: answer(done=share)))
    except UserCodeError as error:
        answer(error=str(error))
    else:
        answer(measured=measured.as_plain())


if __name__ == "__main__":
    main()
