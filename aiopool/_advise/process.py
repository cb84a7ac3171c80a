"""The measuring process.

It gets the user's code as JSON on stdin, and answers with lines of JSON on stdout: first the progress, as a fraction,
and finally the results or an error message. Output of the user's code goes to stderr.
"""

import asyncio
import json
import os
import sys
from typing import Any

from .measure import measure
from .user_code import UserCode, UserCodeError


def main() -> None:
    """Measure, and print the answer."""
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
