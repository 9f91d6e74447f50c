"""Results as a table a person reads."""

import statistics

ROWS = (("teacher", "teacher"), ("baseline", "student alone"), ("student", "distilled student"))
VERIFICATION = {
    "auc": "AUC",
    "equal_error_rate": "equal error rate",
    "true_accepts_at_1_percent": "true accepts at 1 % false ones",
}


def table(runs):
    """A text table of one run, or of the means over runs of one experiment with different seeds.

    A column that no model has anything in is left out.

    Args:
        runs: list of results as in `results.json`.
    """
    several = len(runs) > 1
    header = ["", "test accuracy", "parameters", "agrees with teacher", "seconds", "training images"]
    rows = [header]
    for title, described in models_of(runs):
        accuracy = percent([d["test_accuracy"] for d in described])
        if any(d["at_chance"] for d in described):
            accuracy += " (AT CHANCE: collapsed)"
        agreements = [d["agreement"] for d in described if "agreement" in d]
        on_training = [d["train_accuracy"] for d in described if "train_accuracy" in d]
        seconds = [d["seconds"] for d in described if d.get("seconds") is not None]
        rows.append(
            [
                title,
                accuracy,
                f"{described[0]['parameters']:,}",
                percent(agreements) if agreements else "-",
                f"{statistics.mean(seconds):.1f}" if seconds else "-",
                percent(on_training) if on_training else "-",
            ]
        )
    filled = [i for i in range(len(header)) if i == 0 or any(row[i] != "-" for row in rows[1:])]
    rows = [[row[i] for i in filled] for row in rows]
    classes = f" ({', '.join(runs[0]['classes'])})" if runs[0].get("classes") else ""
    caption = f"{runs[0]['method']} on {runs[0]['dataset']}{classes}, {runs[0]['epochs']} epochs, "
    caption += (
        f"mean (and range) over seeds {', '.join(str(run['seed']) for run in runs)}"
        if several
        else f"seed {runs[0]['seed']}"
    )
    return "\n".join([caption, *aligned(rows)])


def verification_table(runs):
    """The same for the verification of images of an open set; empty for runs without one."""
    rows = [["", *VERIFICATION.values()]]
    for title, described in models_of(runs):
        verified = [d["verification"] for d in described if d.get("verification")]
        if verified:
            rows.append([title, *(percent([v[name] for v in verified]) for name in VERIFICATION)])
            one = verified[0]
    if len(rows) == 1:
        return ""
    pairs = f"{one['same_pairs']:,} pairs of one identity and {one['different_pairs']:,} of two"
    caption = f"verification of {one['images']:,} images of {one['identities']:,} identities that were not trained on"
    return "\n".join([f"{caption}, {pairs}", *aligned(rows)])


def aligned(rows):
    """Lines of a table, the first row underlined; the first column is set to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def models_of(runs):
    """Title and descriptions, one of each run that has it, of every model that the runs tell of."""

    def of_each(key, i):
        return [run[key][i] for run in runs if len(run.get(key) or ()) > i]

    several = max(len(run.get("teachers") or ()) for run in runs)
    for i in range(several):
        yield f"teacher {i + 1}", of_each("teachers", i)
    titles = dict(ROWS)
    if several:
        titles["teacher"] = "ensemble"
    if not any(run.get("teacher") for run in runs):
        titles["student"] = "student alone"
    for key, title in titles.items():
        described = [run[key] for run in runs if run.get(key)]
        if described:
            yield title, described
    generations = max(len(run.get("generations") or ()) for run in runs)
    for i in range(generations if generations > 1 else 0):
        for role in ("teacher", "student"):
            yield f"generation {i + 1}, {role}", [generation[role] for generation in of_each("generations", i)]


def percent(shares):
    mean = f"{100 * statistics.mean(shares):.2f} %"
    return mean if len(shares) == 1 else f"{mean} ({100 * min(shares):.2f} to {100 * max(shares):.2f})"
