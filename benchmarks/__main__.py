"""All benchmarks, one after the other, each printing its table of ratios: `make bench`.

    python -m benchmarks [NAME ...]      some of them; `python benchmarks/NAME.py --help` tells what each can be asked
                                         (of zero_shot_shapes, `python -m benchmarks.zero_shot_shapes --help`)

AESAMPLER_REAL_DATA names the folder of the real samples. Run them on a machine that does nothing else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    files = {file.stem: [str(file)] for file in HERE.glob("*.py") if not file.stem.startswith("_")}
    packages = {file.parent.name: ["-m", f"benchmarks.{file.parent.name}"] for file in HERE.glob("*/__main__.py")}
    commands = dict(sorted((files | packages).items()))
    names = list(commands)
    wanted = sys.argv[1:] or names
    if unknown := sorted(set(wanted) - set(names)):
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(names)}", file=sys.stderr)
        return 2
    for name in wanted:
        print(f"\n== {name}", flush=True)
        if code := subprocess.run([sys.executable, *commands[name]], check=False, cwd=HERE.parent).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
