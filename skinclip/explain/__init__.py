"""From what the model looked at to what a person can check: regions of cited findings, Grad-CAM beside them."""
