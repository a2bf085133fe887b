"""The entry point: sets what must be set before torch is imported, runs the command line, prints errors."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line. An expected error is printed with its hint and exits with 1."""
    # Threads that spin while they wait starve each other on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    from affectbench.cli import app, print_error
    from affectbench.errors import AffectbenchError

    try:
        app()
    except AffectbenchError as error:
        print_error(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
