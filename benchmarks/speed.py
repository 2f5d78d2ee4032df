"""Time and peak memory of what sthggep does, beside a plain float32 version and the machine's own floor.

    python benchmarks/speed.py                        all cases; print the tables
    python benchmarks/speed.py --write                and put tables and plots into the documentation
    python benchmarks/speed.py --cases forward --large    larger sizes, too

The floor is the time of the operations that cannot be left out, at the rate of this machine's own matrix products (and of
decoding, where an image is read), measured in the same run. Times are the least of several, ours and the plain version in
turns. Peak memory is that of a process of its own. Set OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE, as `make bench` does.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import measure
import report
from cases import CASES, Case, correlation

from sthggep.nn._precision import faster_in_bf16

DOCS = Path(__file__).parents[1] / "docs"


def timed(case: Case, sizes: tuple[int, ...], floor: dict[str, float]) -> list[dict[str, Any]]:
    """Seconds at each size."""
    rows = []
    for n in sizes:
        calls = case.calls(n)
        if n > case.plain_to:
            calls.pop("plain", None)
        # The first turn at the smallest size warms up; at the largest it would only take time
        found = measure.shortest(calls, case.repeats, warm_up=n <= case.warm_to)
        row = {"n": n, **found}
        if case.work is not None:
            row["floor"] = case.work(n).seconds(floor)
        rows.append(row)
        print("   ", ", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


def peaks(name: str, case: Case, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Peak memory at each size, each in a process of its own."""
    rows = []
    for n in sizes:
        names = [call for call in ("sthggep", "plain") if call == "sthggep" or n <= case.plain_to]
        for call in names:
            command = [sys.executable, __file__, "--child", name, call, str(n)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"n": n, "call": call, **found})
            print(f"    n {n}, {call}: {found['above']:.2f} GB above {found['peak'] - found['above']:.2f}", flush=True)
    return rows


def child(name: str, call: str, n: int) -> None:
    """One call, its peak memory printed."""
    run = CASES[name].calls(n)[call]
    if CASES[name].warm_memory:
        run()  # what is kept from call to call, such as the optimizer's averages, is there beforehand
    print(json.dumps(measure.peak(run)))


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=[*CASES, "import"], default=[*CASES, "import"])
    parser.add_argument("--large", action="store_true", help="sizes that take long or much memory, too")
    parser.add_argument("--no-memory", action="store_true", help="time only")
    parser.add_argument("--write", action="store_true", help="tables and plots into the documentation")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        name, call, n = options.child
        child(name, call, int(n))
        return
    start = time.perf_counter()
    found: dict[str, Any] = {"machine": measure.machine(), "rates": measure.rates(), "cases": {}}
    found["precision"] = "bfloat16" if faster_in_bf16(measure.cpu()) else "float32"
    print(found["machine"], found["rates"], found["precision"], sep="\n", flush=True)
    for name in (name for name in options.cases if name != "import"):
        case = CASES[name]
        print(case.title, flush=True)
        sizes = case.sizes + (case.large if options.large else ())
        rows = timed(case, sizes, found["rates"])
        memory = [] if options.no_memory else peaks(name, case, case.memory)
        found["cases"][name] = {"title": case.title, "rows": rows, "memory": memory}
    if "forward" in options.cases:
        found["correlation"] = correlation(200)
    if "import" in options.cases:
        found["import"] = measure.import_seconds()
    found["minutes"] = (time.perf_counter() - start) / 60
    for table in report.tables(found).values():
        print(f"\n{table}")
    if options.write:
        report.write(found, DOCS)


if __name__ == "__main__":
    main()
