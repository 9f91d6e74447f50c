"""Report of a comparison or a run, as one page of HTML that opens without a network. No TensorFlow here."""
