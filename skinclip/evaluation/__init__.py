"""Evaluation of a system on labelled cases: predictions, metrics, scores and the report."""
