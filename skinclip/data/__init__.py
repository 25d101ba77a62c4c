"""From folders of labelled photos to cases: readers of published layouts, splits by lesion, decoded photos.

`readers.discover(root)` recognises each subfolder's layout and returns its cases; `splits` keeps test photos out
of training; `photos` decodes them into arrays.
"""
