"""Speed, memory and terminal bytes of dm-inspect against the budgets it promises; `python -m benchmarks`."""
