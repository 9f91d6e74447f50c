"""The Distiller and TriKD: how a student is trained."""
