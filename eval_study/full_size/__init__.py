"""The big presets at true size with random weights: what they hold and how fast they are, measured, beside the budget.

`python -m eval_study.full_size --preset qwen-3b --device cpu --out eval_study/results/full_size`
"""
