"""The command line of a load test: the options, the heading of the results, the exit status."""

import argparse
import sys
from pathlib import Path

from harness import HERE, Cores, LoadTestError, machine


def parser(description, rounds, seconds):
    """The options of a comparison in rounds; rounds and seconds are the defaults."""
    options = argparse.ArgumentParser(description=description)
    common(options)
    options.add_argument("--rounds", type=positive, default=rounds)
    options.add_argument("--seconds", type=positive, default=seconds, help="length of a round")
    options.add_argument("--workers", type=positive, help="of each proxy: 2; with --apart 1")
    options.add_argument("--apart", action="store_true", help="the proxies on cores of their own")
    return options


def common(options):
    """Which Litepilot, and what follows from the result."""
    options.add_argument("--litepilot", type=Path, default=HERE.parent / "target/dist/litepilot")
    options.add_argument("--check", action="store_true", help="exit 1 if a limit is missed")


def engine(options):
    """Which engine the nodes have."""
    options.add_argument("--engine", choices=("embedded", "litefs"), default="embedded")
    options.add_argument("--litefs", default="litefs", help="its executable, with --engine litefs")


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is too small: from 1 on")
    return number


def cores(arguments):
    workers = arguments.workers or (1 if arguments.apart else 2)
    return (Cores.apart if arguments.apart else Cores.shared)(workers)


def heading(arguments, cores, versions):
    """Where and how the numbers below it came about."""
    return (
        f"{machine()}; {versions}.\n"
        f"Workers of each proxy: {len(cores.proxies)}; {cores}.\n"
        f"Medians of {arguments.rounds} interleaved rounds of {arguments.seconds} s; × is the"
        " median of the rounds' ratios (in brackets the lowest and the highest)."
    )


def main(run, arguments):
    """Ends the program: with 1 if `run` could not be carried out or returns limits missed."""
    try:
        failures = run(arguments)
    except LoadTestError as error:
        sys.exit(f"error: {error}")
    for failure in failures:
        print(f"missed: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)
