"""mkdocs hooks: pages outside docs/ become pages of the site, with their images, and links to code become code.

On disk the documentation links to files as they lie in the repository, so that it can be read there. A site has the
pages only.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
RESULTS = "benchmarks/results"
# Where it lies in the repository, and in the site.
PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    f"{RESULTS}/README.md": "results.md",
}
IMAGES = {f"{RESULTS}/{path.name}": f"results/{path.name}" for path in (ROOT / RESULTS).glob("*.png")}


def on_files(files, config):
    for source, page in (PAGES | IMAGES).items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    sources = {in_site: source for source, in_site in PAGES.items()}
    folder = posixpath.dirname(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def link(match):
        image, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not path:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, path))
        in_site = (PAGES | IMAGES).get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(in_site):
            in_site = posixpath.relpath(in_site, posixpath.dirname(page.file.src_uri) or ".")
            return f"{image}[{text}]({in_site}{'#' + anchor if anchor else ''})"
        if image or not (ROOT / path).exists():
            return match[0]  # mkdocs will complain
        return text if "`" in text else f"{text} (`{path}`)"

    return re.sub(r"(!?)\[([^\]\n]+)\]\(([^)\s]+)\)", link, markdown)
