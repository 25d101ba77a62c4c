"""The study protocol: its YAML file, the questions and the reporting checklists."""
