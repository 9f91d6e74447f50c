"""Rules for trainings on several devices or machines: what cannot be kept there is refused, before any work."""

from keras_tkd.config.fields import check

__all__ = ["check_distribution"]


def check_distribution(config):
    """Raises `ValueError` for settings of a `RunConfig` that several devices, or machines, cannot keep."""
    if config.distribution == "none":
        return
    rule = (
        "`deterministic` promises the same bytes on any number of cores, and several devices sum in another order: "
        "leave one of them out"
    )
    check(not config.deterministic, rule, config, "deterministic", "distribution")
    if config.distribution == "multi_worker":
        rule = (
            "`checkpoint_minutes` goes by a clock, and each worker has its own, while all must write a state together: "
            "set `checkpoint_steps`"
        )
        check(config.checkpoint_minutes is None, rule, config, "checkpoint_minutes", "distribution")
