"""Results of runs: their schema, and texts for people. No TensorFlow here."""
