"""What the documents and helps point to is there: files, headings, names of the package, fields of configs."""

import ast
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

from experiments.run import list_configs, resolve

ROOT = pathlib.Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/*.md")])


def headings(page: pathlib.Path) -> set[str]:
    """Anchors as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.strip().lower()).replace(" ", "-") for line in lines}


def exists(name: str) -> bool:
    """Whether a dotted name is a module of the package, or what one has."""
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("https:", "http:")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_of_the_package_exist(page):
    names = set(re.findall(r"\bfacejax(?:\.[A-Za-z_]\w*)+(?!\w*[/@])", page.read_text()))
    assert {name for name in names if not exists(name)} == set()


def test_overrides_are_fields_of_the_config_beside_them():
    commands = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ").replace("$seed", "0")
        commands += re.findall(r"experiments/run\.py --config (\w+)([^\n`;#]*)", text)
    known = [(name, rest) for name, rest in commands if name not in ("NAME", "$")]
    assert len(known) > 20
    for name, rest in known:
        resolve(name, re.findall(r"--config\.([\w.]+)=([^\s\"]*)", rest))


def test_every_config_is_named():
    """In README's table or the protocols', where a{b,c} stands for ab and ac."""
    named = set()
    for page in ("README.md", "docs/protocols.md"):
        for name in re.findall(r"`(\w*(?:\{[\w,]+\})?\w*)`", (ROOT / page).read_text()):
            head, _, rest = name.partition("{")
            middle, _, tail = rest.partition("}")
            named |= {head + part + tail for part in middle.split(",")}
    assert set(list_configs()) <= named


@pytest.mark.parametrize("tool", sorted(ROOT.glob("tools/*.py")), ids=lambda path: path.stem)
def test_tools_tell_what_they_do_and_do_nothing_else(tool, tmp_path):
    told = subprocess.run([sys.executable, tool, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ast.get_docstring(ast.parse(tool.read_text()), clean=False).splitlines()[0] in told.stdout
    assert not list(tmp_path.iterdir())
