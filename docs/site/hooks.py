"""Puts the pages that stand outside docs/ on the site, and makes links between them and those of docs/ work there."""

import pathlib

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[2]
OUTSIDE = ("RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/README.md", "results/models/README.md")
BESIDE = ("benchmarks/growth/*", "results/*.svg", "results/curves/*.svg")


def on_files(files, config):
    beside = [path.relative_to(ROOT).as_posix() for pattern in BESIDE for path in ROOT.glob(pattern)]
    for name in (*OUTSIDE, *beside):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """On the site, docs/ is the root: `docs/x.md` becomes `x.md`, and from a page in docs/ `../x.md` becomes `x.md`."""
    if page.file.src_uri in OUTSIDE:
        return markdown.replace("](docs/", "](").replace("](../docs/", "](../")
    return markdown.replace("](../", "](") if "/" not in page.file.src_uri else markdown
