"""Attributes that are set once, by the constructor: a step was made of what they were then."""

__all__ = ["FixedAttributes"]


class FixedAttributes:
    """Refuses other values for the attributes named in `_FIXED`; to stand before Keras's classes among the bases."""

    _FIXED = ()

    def __setattr__(self, name, value):
        if name in self._FIXED and name in vars(self) and vars(self)[name] is not value:
            raise AttributeError(
                f"`{name}` of a {type(self).__name__} cannot be set: what it computes was made of the one that it was "
                f"given. Make a new {type(self).__name__}"
            )
        super().__setattr__(name, value)
