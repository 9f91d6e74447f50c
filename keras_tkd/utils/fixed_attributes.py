"""Attributes that are set once, by the constructor: a step was made of what they were then."""

__all__ = ["FixedAttributes"]


class FixedAttributes:
    """Refuses other values for the attributes that its classes name in `_FIXED`.

    It stands before Keras's classes among the bases. Each class names those that it adds to its bases'.
    """

    _FIXED = ()

    def __setattr__(self, name, value):
        fixed = any(name in vars(each).get("_FIXED", ()) for each in type(self).__mro__)
        if fixed and name in vars(self) and vars(self)[name] is not value:
            raise AttributeError(
                f"`{name}` of a {type(self).__name__} cannot be set: what it computes was made of the one that it was "
                f"given. Make a new {type(self).__name__}"
            )
        super().__setattr__(name, value)
