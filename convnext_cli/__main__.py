"""Where the command starts, ``convnext`` and ``python -m convnext_cli``: failures before there is a command line."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line, and end the process with the documented exit status, without a traceback."""
    try:
        from convnext_cli.cli import main as run

        run()
    except KeyboardInterrupt:  # while libraries are imported
        _end("interrupted", 130)
    except Exception as error:
        from convnext_cli.base.errors import lacks_memory

        if not lacks_memory(error):
            raise
        _end("error: there is not enough memory\nhint: end other programs, or raise the limit (ulimit -v)", 4)


def _end(words: str, status: int) -> None:
    try:
        print(words, file=sys.stderr, flush=True)
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
