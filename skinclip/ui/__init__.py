"""The web pages. Only this package imports Gradio; it renders Assessments and computes none."""

import os

# read when Gradio is imported
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
