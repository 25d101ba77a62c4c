"""Explanations measured on the same photos: `python -m eval_study.explanations --data ROOT --out DIR`.

A part is a module as in `eval_study.benchmarks`: NAME, run(bench) and section(result).
"""
