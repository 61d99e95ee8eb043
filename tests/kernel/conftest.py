"""Lets the kernel tests share their namespaces' helpers."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
