"""All benchmarks, one after the other, each printing its table of ratios: `make bench`.

    python -m benchmarks [NAME ...]      some of them; `python benchmarks/NAME.py --help` tells what each can be asked

AESAMPLER_REAL_DATA names the folder of the real samples. Run them on a machine that does nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    names = sorted(file.stem for file in HERE.glob("*.py") if not file.stem.startswith("_"))
    wanted = sys.argv[1:] or names
    if unknown := sorted(set(wanted) - set(names)):
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    for name in wanted:
        print(f"\n== {name}", flush=True)
        if code := subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
