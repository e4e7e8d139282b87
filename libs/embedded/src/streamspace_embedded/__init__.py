"""All of StreamSpace on one machine, from wheels and Debian packages alone.

`layout` says where things are kept, `trust` makes their secrets, `wiring` gives each
process its settings, `children` starts and watches them, and `main` puts them in order.
"""
