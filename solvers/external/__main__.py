"""`python -m headrace.solvers.external --include`: the folder that holds headrace.h and headrace_client.py."""

import sys

from headrace.solvers.external.request import CLIENT_FOLDER

if __name__ == "__main__":
    if sys.argv[1:] != ["--include"]:
        sys.exit("usage: python -m headrace.solvers.external --include")
    sys.stdout.write(f"{CLIENT_FOLDER}\n")
