"""Measurements of load, faults and throughput; their results lie in `eval_study/results/reliability`."""
