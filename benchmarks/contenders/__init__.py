"""Who trains in benchmarks/training.py: each a module that is run in a process of its own, `-m … WORK`."""
