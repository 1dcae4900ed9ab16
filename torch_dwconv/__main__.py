"""``python -m torch_dwconv``: prints the diagnosis of this installation; exit status 1 if its self-test fails."""

import sys

from .introspect import diagnose

diagnosis = diagnose()
print(diagnosis)
sys.exit(not diagnosis.ok)
