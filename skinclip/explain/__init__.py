"""Explanations that a person can check: regions of cited findings, and Grad-CAM and other maps for comparison."""
