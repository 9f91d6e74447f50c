"""What each distillation method is, as plain data, and how several are combined. No Keras here."""

from keras_tkd.methods.combination import combine
from keras_tkd.methods.registry import METHODS, Method, Online, Term

__all__ = ["METHODS", "Method", "Online", "Term", "combine"]
