"""The program `headrace`: from here on Ctrl-C ends it without a traceback, while the command line is still imported."""

import os
import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    from headrace.pipelines.cli import main as command_line

    command_line(prog_name="headrace")


if __name__ == "__main__":
    main()
