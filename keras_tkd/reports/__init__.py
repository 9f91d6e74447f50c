"""Results of runs: their schema, and text that people read. No TensorFlow here."""
