"""Measurements of what Lowrank promises; `make bench` runs them all, `make bench ARGS=startup` one."""
