"""The web page. Only this package imports Gradio; it renders Assessments and computes none."""
