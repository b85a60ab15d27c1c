"""The command line client: datasets, jobs, adapters and chat of a Lowrank server. Needs Python and PyYAML alone."""
