"""The delivery: Ray and the command line. The only ring that imports ray."""

import sys
from pathlib import Path

# Set while Python looks for a module given by -m. It has put the working directory before everything, with whatever
# search.py a person has there.
_IS_BY_NAME = sys.argv[:1] == ["-m"] and not sys.flags.safe_path
if _IS_BY_NAME and Path(sys.path[0]).resolve() != Path(__file__).resolve().parents[1]:
    del sys.path[0]
