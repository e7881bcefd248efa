"""Two files of one network, float and quantized, and samples go in; better integers for its weights come out."""
