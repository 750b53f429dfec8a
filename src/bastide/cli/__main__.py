"""`python -I -S …/bastide/cli/__main__.py`: the command line without `site`, from wherever the source stands."""

import sys

if "bastide" not in sys.modules:
    sys.path.insert(0, __file__.rsplit("/", 3)[0])

from bastide.cli.main import entry

if __name__ == "__main__":
    entry()
