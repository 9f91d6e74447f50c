"""What results say, as text for a person. No TensorFlow here."""
