#!/usr/bin/env python3
"""What CI looks at in the tracked Markdown pages.

    .ci/pages.py links      checks relative links and their anchors; exits with 1 if one is broken
    .ci/pages.py yaml DIR   writes each block of YAML to a file in DIR, named by its page and line

Anchors are GitHub's. Links to other sites are not followed: CI must not depend on them.
"""

import pathlib
import re
import subprocess
import sys
import urllib.parse

FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\w*)")
HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*$")
CODE = re.compile(r"(`+)(.+?)\1")
# [text](target) and ![text](target), with or without a title.
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:")


def pages():
    """The tracked pages, relative to the current directory."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", "*.md"], check=True, capture_output=True, text=True
    )
    return [pathlib.Path(name) for name in listed.stdout.split("\0") if name]


def outside_blocks(text):
    """Numbers and texts of the lines that are not in a fenced block."""
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark[1]
        elif fence is not None:
            if mark and mark[1].startswith(fence) and not mark[2]:
                fence = None
        else:
            yield number, line


def yaml_blocks(text):
    """The number of the first line and the text of each fenced block of YAML, without its indent."""
    fence, indent, block, start = None, 0, None, 0
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if fence is None:
            if mark:
                fence, indent, start = mark[1], len(line) - len(line.lstrip()), number
                block = [] if mark[2] in ("yaml", "yml") else None
        elif mark and mark[1].startswith(fence) and not mark[2]:
            if block is not None:
                yield start, "\n".join(block) + "\n"
            fence = None
        elif block is not None:
            block.append(line[indent:])


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    found, seen = set(), {}
    for _, line in outside_blocks(text):
        heading = HEADING.match(line)
        if not heading:
            continue
        title = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[2]).lower()
        anchor = re.sub(r"[^\w\- ]", "", title).replace(" ", "-")
        count = seen.get(anchor, 0)
        seen[anchor] = count + 1
        found.add(f"{anchor}-{count}" if count else anchor)
    return found


def links(text):
    """The number of its line and the target of each link that leads to no other site."""
    for number, line in outside_blocks(text):
        for target in LINK.findall(CODE.sub("``", line)):
            if not EXTERNAL.match(target):
                yield number, target


def problem(page, target):
    """What is wrong with a link of that page, if anything is."""
    path, _, anchor = target.partition("#")
    file = page.parent / urllib.parse.unquote(path) if path else page
    if not file.exists():
        return f"{target}: there is no {file}"
    if anchor and file.suffix == ".md" and anchor not in anchors(file.read_text("utf-8")):
        return f"{target}: {file} has no heading for #{anchor}"
    return None


def check_links():
    count, wrong = 0, []
    for page in pages():
        for number, target in links(page.read_text("utf-8")):
            count += 1
            if why := problem(page, target):
                wrong.append(f"{page}:{number}: {why}")
    print("\n".join([*wrong, f"{count} links, {len(wrong)} broken"]))
    return 1 if wrong else 0


def write_yaml(directory):
    for page in pages():
        for number, block in yaml_blocks(page.read_text("utf-8")):
            name = f"{page.as_posix().replace('/', '-')}-line-{number}.yml"
            (directory / name).write_text(block, "utf-8")
    return 0


def main(arguments):
    match arguments:
        case ["links"]:
            return check_links()
        case ["yaml", directory]:
            return write_yaml(pathlib.Path(directory))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
