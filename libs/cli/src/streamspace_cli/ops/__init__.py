"""What operators do with the streams themselves, over NATS.

Imported only by the commands that need it: the bus takes a moment to load.
"""
