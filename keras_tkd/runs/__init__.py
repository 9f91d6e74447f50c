"""The application: one run in one folder."""
