"""How the benchmark of the transport measures: processes to drive, rounds, what else is measured, goals, output."""
