"""Which modules may import which, and what importing facejax must not import."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "facejax"
BASE = {
    "config",
    "overrides",
    "naming",
    "locks",
    "atomic",
    "full_disk",
    "integrity",
    "tasks",
    "preprocessing",
    "decoding",
}
ALLOWED = {
    "naming": set(),
    "locks": set(),
    "atomic": set(),
    "full_disk": set(),
    "integrity": set(),
    "config": set(),
    "overrides": {"config", "naming"},
    "protocol_config": {"config"},
    "tasks": set(),
    "preprocessing": set(),
    "decoding": {"tasks"},
    "models": {"naming", "tasks", "preprocessing"},
    "detect": {"naming", "tasks", "preprocessing"},
    "data": {"naming", "locks", "atomic", "tasks", "preprocessing"},
    "cards": {*BASE, "models", "datasets", "evals"},
    "weights": {*BASE, "models", "detect", "cards"},
    "datasets": {*BASE, "data", "detect"},
    "evals": {*BASE, "data"},
    "video": {*BASE, "protocol_config", "data"},
    "train": {*BASE, "models", "weights", "data", "datasets", "evals", "video", "detect"},
    "inference": {*BASE, "models", "weights", "detect", "data", "video", "cards"},
    "export": {*BASE, "models", "weights", "detect", "data", "inference", "cards"},
    "app": {*BASE, "weights", "video", "inference", "export", "cards"},
    "cli": {*BASE, "models", "weights", "detect", "video", "inference", "export", "data", "datasets", "app", "cards"},
    "__init__": {"models", "inference"},
    "__main__": {"cli"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def area(path: pathlib.Path) -> str:
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_design(path):
    own = area(path)
    assert own in ALLOWED, f"{own} is new: say in ALLOWED (and CONTRIBUTING.md) what it may import"
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" if node.module == "facejax" else node.module for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "facejax" and len(parts) > 1 and parts[1] != own:
                assert parts[1] in ALLOWED[own], f"{path}:{node.lineno}: {own} must not import facejax.{parts[1]}"
            assert parts[0] not in {"experiments", "tools", "tests"}, f"{path}:{node.lineno}: the package stands alone"


def imported_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_import_is_light():
    heavy = {"torch", "tensorflow", "keras", "sklearn", "matplotlib"}
    names = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES]
    everything = "import " + ", ".join(name.removesuffix(".__init__") for name in names)
    assert imported_by(everything) & heavy == set()
    assert imported_by("import facejax") & {*heavy, "jax", "flax", "cv2"} == set()


def test_data_and_datasets_work_without_jax():
    names = [path for path in MODULES if area(path) in {"data", "datasets"}]
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in names]
    for name in modules:
        tree = ast.parse((PACKAGE.parent / (name.replace(".", "/") + ".py")).read_text())
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top:
            found = {alias.name for alias in node.names} if isinstance(node, ast.Import) else {node.module}
            assert not {part for part in found if part and part.split(".")[0] in {"jax", "flax"}}, name


def test_public_names_exist():
    import facejax

    assert all(callable(getattr(facejax, name)) for name in facejax.__all__)


def test_type_checkers_read_the_annotations():
    assert (PACKAGE / "py.typed").exists()  # PEP 561: without it type checkers treat an installed package as untyped
