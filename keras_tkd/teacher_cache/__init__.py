"""Outputs of a frozen teacher, computed once and kept on disk."""

from keras_tkd.teacher_cache.cache import TeacherCache

__all__ = ["TeacherCache"]
