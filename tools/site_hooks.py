"""mkdocs hooks that add pages to those in docs/: front page, tutorials, model cards, reference.

The front page is README.md, the tutorials are the notebooks with their outputs, and the cards are
those beside the weights, so that no text is duplicated. The reference has every public name in
``keras_scnn/__init__.pyi``, by package.
"""

from __future__ import annotations

import ast
import itertools
import json
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:|data:)([^)\s]+)\)")
BLOCK = re.compile(r"(^```.*?^```$)", re.M | re.S)
ABOUT = {
    "data": "Records, samplers and streams of photos to train on.",
    "losses": "Pure functions of `keras.ops`, and classes for `compile`.",
    "models": "Encoders, heads, the Siamese network, presets.",
    "reconstruction": "A photo, or several photos, to faces.",
}


def on_files(files: Files, config) -> Files:
    """Add the generated pages."""
    pages = {"index.md": (ROOT / "README.md").read_text(), "reference.md": reference()}
    for name, card in cards().items():
        pages[name] = (ROOT / card).read_text()
    for name, notebook in tutorials().items():
        pages[name] = tutorial(json.loads((ROOT / notebook).read_text()))
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def cards() -> dict[str, str]:
    """Model cards: from the site's page to the file in the project."""
    assets = ROOT / "keras_scnn" / "assets"
    found = sorted(assets.rglob("CARD.md"))
    return {f"cards/{path.parent.name}.md": path.relative_to(ROOT).as_posix() for path in found}


def tutorials() -> dict[str, str]:
    """Tutorials: from the site's page to the notebook in the project."""
    found = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return {f"tutorials/{path.stem}.md": path.relative_to(ROOT).as_posix() for path in found}


def tutorial(notebook: dict) -> str:
    """A notebook as Markdown: text, code, and the code's outputs."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        parts.append(f"```python\n{source}\n```" if is_code else source)
        parts += map(shown, cell.get("outputs", []))
    return "\n\n".join(parts)


def shown(output: dict) -> str:
    """A cell's printed text (without progress and warnings), or its picture."""
    if output.get("name") == "stdout":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    picture = "".join(output.get("data", {}).get("image/png", "")).strip()  # a text or its lines
    return f"![drawn by the code above](data:image/png;base64,{picture})" if picture else ""


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Change links to the site's pages; files outside the site are named without a link."""
    made = {"index.md": "README.md", **cards(), **tutorials()}
    origin = made.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    folder = posixpath.dirname(page.file.src_uri)
    pages = {source: name for name, source in made.items()}

    def replaced(match: re.Match) -> str:
        mark, text, target = match.groups()
        path, _, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
        inside = pages.get(there, there.removeprefix("docs/") if there.startswith("docs/") else "")
        if not inside:
            return text if text.strip("`") == there else f"{text} (`{there}`)"
        link = posixpath.relpath(inside, folder or ".")
        return f"{mark}[{text}]({link}{'#' if anchor else ''}{anchor})"

    parts = BLOCK.split(markdown)  # code blocks have odd indices
    parts[::2] = [LINK.sub(replaced, part) for part in parts[::2]]
    return "".join(parts)


def reference() -> str:
    """The page with all public names."""
    parts = ["# Reference", "Every public name of `import keras_scnn`, by package."]
    for package, names in itertools.groupby(public_names(), key=lambda name: name.split(".")[1]):
        parts += [f"## {package}", ABOUT.get(package, "")]
        # keras_scnn.export is the folder export/ of the project.
        paths = (name.replace("keras_scnn.export.", "export.") for name in names)
        parts += [f"::: {path}\n    options:\n      heading_level: 3" for path in paths]
    return "\n\n".join(part for part in parts if part)


def public_names() -> list[str]:
    """The full paths of the public names, sorted."""
    tree = ast.parse((ROOT / "keras_scnn" / "__init__.pyi").read_text())
    return sorted(
        f"keras_scnn.{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )
