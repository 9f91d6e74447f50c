"""Distillation methods as plain data, and combinations of several. No Keras is imported here."""

from keras_tkd.methods.combination import combine
from keras_tkd.methods.registry import METHODS, Method, Online, Term

__all__ = ["METHODS", "Method", "Online", "Term", "combine"]
