"""Where templates come from: git repositories, and this package's own starter catalog.

`git` asks a reader process (`reader`), which is why this package imports nothing by
itself: the reader starts for every sync, and quickly.
"""
