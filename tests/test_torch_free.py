"""What only reads numbers and settings answers at once: importing torch takes seconds."""

import subprocess
import sys

MODULES = (
    "finegpr.catalog",
    "finegpr.manifest",
    "finegpr.weights",
    "finegpr.pixels.decode",
    "finegpr.measuring.config",
    "finegpr.measuring.results",
    "finegpr.reid.ranking",
    "finegpr.reid.recipes",
    "search.objectives",
    "search.optimizers",
    "search.selectors",
    "search.sweep",
)
SCRIPT = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    assert not {"torch", "torchvision"} & sys.modules.keys(), name
"""


def test_numbers_and_settings_are_read_without_torch() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, *MODULES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
