"""Models of keras.applications and recurrent layers in their variants, held against Keras's own outputs."""
