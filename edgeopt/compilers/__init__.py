"""Compilers for accelerators: a `.tflite` file goes in; what the accelerator runs, and what it will cost, come out."""
