"""`lowrank`, or `python -m lowrank`: reads the command, runs it, and tells failures in one sentence."""

import os
import sys
from collections.abc import Sequence

from lowrank.failures import INTERRUPTED, ClientError
from lowrank.options import parser
from lowrank.printing import say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the process's exit code."""
    given = parser().parse_args(arguments)
    try:
        code: int = given.run(given)
        sys.stdout.flush()
    except ClientError as error:
        say(f"lowrank: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who reads has read enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
