"""mkdocs hooks: the pages at the root of the repository become pages of the site, and links to code become code.

On disk the documentation links to files as they lie in the repository, so that it can be read there. A site has the
pages only.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_files(files, config):
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    folder = "" if page.file.src_uri in PAGES.values() else "docs"

    def link(match):
        text, target = match.groups()
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not path:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, path))
        in_site = PAGES.get(path) or path.removeprefix("docs/")
        if files.get_file_from_path(in_site):
            return f"[{text}]({in_site}{'#' + anchor if anchor else ''})"
        if not (ROOT / path).exists():
            return match[0]  # mkdocs will complain
        return text if "`" in text else f"{text} (`{path}`)"

    return re.sub(r"(?<!!)\[([^\]\n]+)\]\(([^)\s]+)\)", link, markdown)
