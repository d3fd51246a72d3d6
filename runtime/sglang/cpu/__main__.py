"""Puts the stand-ins before all else in this virtual environment, for every process of it.

`python -m nprdsl.runtime.sglang.cpu`, once.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from nprdsl.runtime.sglang.cpu import FOLDER

LINE = f"import sys; sys.path.insert(0, {FOLDER!r})\n"

if __name__ == "__main__":
    Path(sysconfig.get_path("purelib"), "nprdsl_cpu.pth").write_text(LINE, encoding="utf-8")
