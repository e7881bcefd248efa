"""A runtime that ends the process: what a foreign runtime's failed assertion does."""

import os


def open(*_args, **_kwargs):
    os.write(2, b"assertion failed: everything\n")
    os.abort()
