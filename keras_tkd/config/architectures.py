"""Settings of models that a run builds from an architecture of `keras.applications`."""

from keras_tkd.config.fields import ReadWhen, check, option
from keras_tkd.utils.choices import APPLICATIONS

__all__ = ["check_weights", "weights_option"]


def weights_option(model, decides, yields_to=()):
    """Makes the field of the weights that a model starts from.

    Args:
        model: name of the setting that says which model.
        decides, yields_to: see `option`.
    """
    return option(
        None,
        f"File of weights that the body of --{model}={APPLICATIONS}NAME starts from, as Keras publishes them with "
        "'notop' in their names; random ones if not given. Nothing is downloaded.",
        decides=decides,
        read_when=(
            ReadWhen(lambda config: model != "teacher_model" or config.has_teacher),
            ReadWhen(
                lambda config: getattr(config, model).startswith(APPLICATIONS),
                f"`{{name}}` goes with {model}={APPLICATIONS}NAME: a model of a file has its weights there",
            ),
        ),
        yields_to=yields_to,
        names_file=True,
    )


def check_weights(config, name):
    """Raises `ValueError` for weights that are asked for by what Keras would download them by."""
    rule = f"`{name}` must be a file: nothing is downloaded. Fetch it where Keras has it, and pass --{name}=FILE"
    check(getattr(config, name) != "imagenet", rule, config, name)
