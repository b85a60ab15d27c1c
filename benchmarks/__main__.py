"""Runs the measurements named on the command line, or all; each is a module here with a `main`."""

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    modules = [one for one in pkgutil.iter_modules(benchmarks.__path__) if not one.ispkg and one.name != "__main__"]
    every = sorted(one.name for one in modules)
    for name in sys.argv[1:] or every:
        if name not in every:
            sys.exit(f"There is no measurement {name}; there are {', '.join(every)}.")
        print(f"# {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
