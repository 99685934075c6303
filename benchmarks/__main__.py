"""``python -m benchmarks``: measure this hub on this machine."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.options import Options
from benchmarks.report import Result, save, write_docs
from benchmarks.tools import ROOT, BenchmarkError, compile_program, need_files

NAMES = ("fanout", "connect", "memory", "flood", "stalled")

EPILOG = """examples:
  python -m benchmarks                      all of it, some ten minutes
  python -m benchmarks fanout --quick       rough figures in a minute
  python -m benchmarks --docs               all, and the figures into docs/performance.md
  python -m benchmarks memory --connections 10000

Figures of one run compare only with one another: other work on the machine shows in all of them."""


def sizes(text: str) -> tuple[int, ...]:
    found = tuple(int(part) for part in text.split(","))
    if not found or min(found) < 1:
        raise ValueError
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the hub: fan-out beside a C program, connecting, memory, a flood, a stalled reader.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("which", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} or all (the default)")
    made.add_argument("--quick", action="store_true", help="short rounds: see that it works; the figures are rough")
    made.add_argument("--rounds", type=int, default=0, metavar="N", help="rounds of each measurement (5; quick: 1)")
    made.add_argument("--docs", action="store_true", help="put the figures into docs/performance.md")
    made.add_argument(
        "--history", choices=("none", "recent", "durable"), default="none", help="history of the fan-out's channel"
    )
    made.add_argument(
        "--subscribers", type=sizes, default=(1, 10, 100, 1000), metavar="N,N", help="sizes of the fan-out"
    )
    made.add_argument("--connections", type=int, default=5000, metavar="N", help="idle connections of memory (5000)")
    made.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="measure the hub of another checkout")
    made.add_argument("--no-pin", action="store_true", help="let the system choose the CPUs")
    return made


def command_line(name: str, arguments: argparse.Namespace) -> str:
    """How to measure this again."""
    parts = ["python -m benchmarks", name]
    parts += ["--quick"] if arguments.quick else []
    parts += [f"--rounds {arguments.rounds}"] if arguments.rounds else []
    parts += [f"--history {arguments.history}"] if arguments.history != "none" and name == "fanout" else []
    return " ".join(parts)


def run(name: str, options: Options) -> Result:
    found: Result = importlib.import_module(f"benchmarks.{name}").run(options)
    return found


def main(argv: list[str] | None = None) -> int:
    made = parser()
    arguments = made.parse_args(argv)
    chosen = list(NAMES) if not arguments.which or "all" in arguments.which else arguments.which
    unknown = [name for name in chosen if name not in NAMES]
    if unknown:
        made.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(NAMES)} and all")
    options = Options(
        quick=arguments.quick,
        rounds=arguments.rounds or (1 if arguments.quick else 5),
        root=arguments.root.resolve(),
        pin=not arguments.no_pin,
        history=arguments.history,
        subscribers=arguments.subscribers,
        connections=arguments.connections,
    )
    failed = False
    try:
        for program in ("sink", "publisher", "baseline"):
            compile_program(program)
        need_files(max(options.subscribers) + 200)
        for name in chosen:
            command = command_line(name, arguments)
            print(f"\n{name}: {command}", flush=True)
            result = run(name, options)
            print(result.text(), flush=True)
            path = save(result, command)
            print(f"\n  saved in {path.relative_to(ROOT)}", flush=True)
            if arguments.docs:
                write_docs(result, command)
            failed = failed or bool(result.failures)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
