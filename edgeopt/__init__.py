"""edgeopt: from a trained Keras model and some data to a small, fast, proven `.tflite` inside an app."""

__version__ = "0.1.0"
