"""One module a layout of labelled photos, each with a `Layout` of its name, how it is recognised and how it is read.

`registry` lists them: a new layout is a module here and one entry there. See `docs/extending.md`.
"""
