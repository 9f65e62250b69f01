"""Measure operations beside their peers: `python -m benchmarks [OPERATION ...]`.

The tests and the checks come first; where one is red, no number is printed and no file is touched.
"""

import argparse
import sys
from datetime import UTC, datetime

import torch

from benchmarks import gate, machine, measure, operations, results
from benchmarks.registry import DEVICES, Combination, combinations
from kempe_nb.publish.checkout import commit

#: What the repetitions of one row may take together, in ms.
BUDGET_MS = 2_000
QUICK_BUDGET_MS = 100


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 good, 1 red, 2 misused, 130 interrupted."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if fault := _fault(options):
        parser.error(fault)
    try:
        _run(options)
    except gate.Red as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; the results of finished operations are kept")
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    chosen = [operations.load(name) for name in options.operation or operations.names()]
    torch.set_num_threads(options.threads)
    measure.keep_freed_blocks(measure.OBSERVED_BLOCK)
    # All gates come before the first number, and all footprints before the first time.
    for operation in chosen:
        gate.pass_gate(operation, options.device)
        print(f"{operation.name}: tests and checks are green", flush=True)
    plans = [combinations(each, options.device, first_case=options.quick) for each in chosen]
    footprints = [[_footprint(combination) for combination in plan] for plan in plans]
    budget = QUICK_BUDGET_MS if options.quick else BUDGET_MS
    shared = _circumstances(options, budget)
    print(f"{shared.device}: a copy moves {shared.copy_gb_per_s:.1f} GB/s", flush=True)
    for operation, plan, found in zip(chosen, plans, footprints, strict=True):
        rows = _measured(plan, found, shared, budget)
        if not options.quick:
            path = results.FOLDER / f"{operation.name}.csv"
            results.write(path, results.merge(results.read(path), rows))


def _footprint(combination: Combination) -> measure.Footprint | str:
    """Return memory and launches, or the reason why the combination is not measured."""
    eager = combination.implementation.eager
    return combination.why_not or measure.footprint(
        combination.prepare(), combination.device, eager=eager
    )


def _measured(
    plan: list[Combination],
    footprints: list[measure.Footprint | str],
    shared: results.Circumstances,
    budget: float,
) -> list[results.Row]:
    """Time the combinations of an operation, print a line for each and return the rows."""
    rows = []
    for combination, found in zip(plan, footprints, strict=True):
        if isinstance(found, measure.Footprint):
            found = measure.timing(combination.prepare(), combination.device, budget), found
        rows.append(results.row(combination, shared, found))
        print(_line(rows[-1]), flush=True)
    return rows


def _circumstances(options: argparse.Namespace, budget: float) -> results.Circumstances:
    found = commit(gate.ROOT)
    return results.Circumstances(
        device=machine.device_name(options.device),
        threads=str(options.threads),
        copy_gb_per_s=measure.copy_gb_per_s(options.device, budget),
        driver=machine.driver(options.device),
        commit=options.commit if found == "unknown" and options.commit else found,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        **machine.versions(),
    )


def _line(row: results.Row) -> str:
    """Return one row for the terminal."""
    name = f"{row['operation']} {row['shape']} {row['dtype']}, {row['implementation']}"
    if not row["median_ms"]:
        return f"{name}: {row['note']}"
    mark = ", launch-bound" if row["launch_bound"] == "yes" else ""
    return (
        f"{name}: {row['median_ms']} ms ({row['p20_ms']} to {row['p80_ms']}, "
        f"n = {row['repetitions']}), {float(row['share_of_copy']):.2%} of the copy{mark}"
    )


def _fault(options: argparse.Namespace) -> str:
    """Say which argument asks for something that does not exist, or nothing."""
    for name in options.operation:
        if name not in operations.names():
            return f"operation is {name!r}; accepted are {', '.join(operations.names())}"
    if options.device not in DEVICES:
        return f"device is {options.device!r}; accepted are {', '.join(DEVICES)}"
    if options.device == "cuda" and not torch.cuda.is_available():
        return "device is 'cuda', but torch sees no GPU; accepted here is cpu"
    if options.threads < 1:
        return f"threads is {options.threads}; accepted is a positive integer"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("operation", nargs="*", help="names of operations; all by default")
    parser.add_argument("--device", default="cpu", help=" or ".join(DEVICES))
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--commit", help="what git would say, for a copy without its .git folder")
    parser.add_argument(
        "--quick", action="store_true", help="the first case of each, and no file is written"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
