"""`cps-new-service NAME`: writes a working service type, as a package of its own, ready to be changed."""

from __future__ import annotations

import argparse
import keyword
import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence
from typing import Final

import jinja2

import conpaas
from conpaas.core import errors, services

TEMPLATES: Final = pathlib.Path(__file__).with_name("templates")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{1,30}")


def write(name: str, directory: pathlib.Path) -> list[pathlib.Path]:
    """Write the service type `name` into `directory` (which must not exist yet), all of it or nothing; the files written.

    Raises InvalidArgument for a name that cannot be used, and when the directory exists.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise errors.InvalidArgument(
            f"'{name}' cannot be the name of a service type.", hint="use 2 to 31 lower-case letters, digits and underscores, a letter first"
        )
    if name in services.registry.available():
        raise errors.InvalidArgument(f"There is a service type '{name}' already.", hint="choose another name")
    if directory.exists():
        raise errors.InvalidArgument(f"{directory} exists already.", hint="name another place with --directory, or move it away")
    package = f"conpaas_{name}"
    variables = {
        "name": name,
        "package": package,
        "class_name": "".join(part.capitalize() for part in name.split("_")),
        "version": conpaas.__version__,
    }
    environment = jinja2.Environment(  # noqa: S701 - the result is Python, not HTML
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, loader=jinja2.FileSystemLoader(TEMPLATES)
    )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=directory.parent) as draft:
        for template in sorted(TEMPLATES.rglob("*.j2")):
            relative = template.relative_to(TEMPLATES)
            target = pathlib.Path(draft, "service", _target(relative.with_suffix(""), package, name))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(environment.get_template(relative.as_posix()).render(variables))
        pathlib.Path(draft, "service").rename(directory)
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _target(relative: pathlib.Path, package: str, name: str) -> pathlib.Path:
    """Where a template's text goes: packaging and tests at the top, all else into the package."""
    if relative.name == "agent.cfg":
        return pathlib.Path(package, f"{name}-agent.cfg")
    if relative.name == "test_service.py":
        return pathlib.Path("tests", f"test_{name}.py")
    if relative.parent == pathlib.Path() and relative.name in {"setup.py", "README.md"}:
        return relative
    return pathlib.Path(package) / relative


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(prog="cps-new-service", description="Writes a working service type, ready to be changed.")
    parser.add_argument("name", help="the name of the service type, such as 'greeter'")
    parser.add_argument("--directory", type=pathlib.Path, help="where to write it (default: ./NAME)")
    options = parser.parse_args(arguments)
    directory = (options.directory or pathlib.Path(options.name)).absolute()
    try:
        written = write(options.name, directory)
    except errors.ConPaaSError as error:
        print(f"ERROR: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
        return 1
    print(f"Service type '{options.name}' written to {directory}:")
    for path in written:
        print(f"  {path.relative_to(directory)}")
    print("Install it beside the Director with 'pip install --editable", f"{directory}', then start the Director again.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
