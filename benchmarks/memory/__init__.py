"""The estimate of memory against what trainings take: bases, cases, peers, and the process that is measured."""
