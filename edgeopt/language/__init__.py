"""Decoders that write text: a Keras model goes in; a file that remembers what it has read, and its text, come out."""
