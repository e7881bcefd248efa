"""What notebooks and the command line call: paths or models at hand go in, plain results come out.

Everything that can crash runs in worker processes; nothing here imports TensorFlow. The names are those of `edgeopt`
itself, whose `__init__` holds the table.
"""
