"""Sites that nobody here wrote, from Debian's packages: unpacked and made into archives ready for upload, never installed.

    archive = debian.debian_site("dokuwiki")      # tar.gz: DokuWiki with its libraries; keeps its data in the temporary directory
    archive = debian.debian_site("wordpress")     # tar.gz: WordPress without configuration, so that it asks for its set-up
    archive = debian.debian_site("tomcat10-examples")   # war: Tomcat's example web application

Archives are kept in `CONPAAS_TEST_CACHE` (scripts/test sets it), else in var/test-cache of the checkout, and made once.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import inspect
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parents[2]

_PRELOAD = """<?php
$data = sys_get_temp_dir() . '/dokuwiki';
foreach (['attic', 'cache', 'index', 'locks', 'log', 'media', 'media_attic', 'media_meta', 'meta', 'pages', 'tmp'] as $part) {
    if (!is_dir("$data/$part")) {
        @mkdir("$data/$part", 0700, true);
    }
}
"""
_LOCAL = """<?php
$conf['title'] = 'Debian wiki';
$conf['savedir'] = sys_get_temp_dir() . '/dokuwiki';
$conf['useacl'] = 0;
$conf['userewrite'] = 2;
"""


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """Packages to fetch, and what makes the unpacked ones (first argument) a site (second)."""

    packages: tuple[str, ...]
    build: Callable[[pathlib.Path, pathlib.Path], None]
    suffix: str


def _copy(unpacked: pathlib.Path, source: str, target: pathlib.Path) -> None:
    """Copy a tree of the unpacked packages, with what its links mean among them; links to nowhere are left out."""
    for path in sorted((unpacked / source).rglob("*")):
        place = target / path.relative_to(unpacked / source)
        found = _followed(unpacked, path)
        if found is None:
            continue
        if path.is_symlink() and found.is_dir():
            _copy(unpacked, str(found.relative_to(unpacked)), place)
        elif found.is_dir():
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found, place)


def _followed(unpacked: pathlib.Path, path: pathlib.Path) -> pathlib.Path | None:
    """What a path is, after its links, as if the unpacked packages were installed; None if it is not there."""
    for _ in range(10):
        if not path.is_symlink():
            return path if path.exists() else None
        link = path.readlink()
        path = unpacked / link.relative_to("/") if link.is_absolute() else pathlib.Path(os.path.normpath(path.parent / link))
    return None


def _dokuwiki(unpacked: pathlib.Path, site: pathlib.Path) -> None:
    _copy(unpacked, "usr/share/dokuwiki", site)
    _copy(unpacked, "etc/dokuwiki", site / "conf")
    for library in ("php", "php-geshi", "javascript"):
        if (unpacked / "usr/share" / library).is_dir():
            _copy(unpacked, f"usr/share/{library}", site / "debian" / library)
    for script in site.rglob("*.php"):
        text = script.read_text(encoding="utf-8", errors="surrogateescape")
        moved = re.sub(r"'/usr/share/(?=php|javascript)", "DOKU_INC.'debian/", text)
        script.write_text(moved, encoding="utf-8", errors="surrogateescape")
    (site / "inc" / "preload.php").write_text(_PRELOAD)
    (site / "conf" / "local.php").write_text(_LOCAL)
    (site / "install.php").unlink()


def _wordpress(unpacked: pathlib.Path, site: pathlib.Path) -> None:
    _copy(unpacked, "usr/share/wordpress", site)
    _copy(unpacked, "var/lib/wordpress/wp-content", site / "wp-content")
    (site / "wp-config.php").unlink()


def _examples(unpacked: pathlib.Path, site: pathlib.Path) -> None:
    _copy(unpacked, "usr/share/tomcat10-examples/examples", site)


_RECIPES = {
    "dokuwiki": _Recipe(
        ("dokuwiki", "php-geshi", "php-phpseclib", "libphp-simplepie", "libjs-jquery", "libjs-jquery-ui", "libjs-jquery-cookie"),
        _dokuwiki,
        "tar.gz",
    ),
    "wordpress": _Recipe(
        ("wordpress", "wordpress-theme-twentytwentythree", "libjs-underscore", "libjs-cropper", "php-getid3"), _wordpress, "tar.gz"
    ),
    "tomcat10-examples": _Recipe(("tomcat10-examples",), _examples, "war"),
}


def debian_site(name: str) -> pathlib.Path:
    """The archive of a site, one of `dokuwiki`, `wordpress` and `tomcat10-examples`."""
    recipe = _RECIPES[name]
    made_how = hashlib.sha256(inspect.getsource(inspect.getmodule(debian_site)).encode()).hexdigest()[:12]  # type: ignore[arg-type]
    cache = pathlib.Path(os.environ.get("CONPAAS_TEST_CACHE") or ROOT / "var" / "test-cache") / "debian"
    cache.mkdir(parents=True, exist_ok=True)
    archive = cache / f"{name}-{made_how}.{recipe.suffix}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _make(recipe, cache, archive)
    return archive


def _make(recipe: _Recipe, cache: pathlib.Path, archive: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        packages, unpacked, site = (pathlib.Path(scratch) / name for name in ("packages", "unpacked", "site"))
        for directory in (packages, unpacked, site):
            directory.mkdir()
        _download(recipe.packages, packages, cache)
        for package in sorted(packages.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
        recipe.build(unpacked, site)
        draft = pathlib.Path(scratch) / "draft"
        _pack(site, draft, war=recipe.suffix == "war")
        draft.rename(archive)


def _download(packages: tuple[str, ...], into: pathlib.Path, cache: pathlib.Path) -> None:
    """Fetch packages without root: with the machine's lists of packages, else with lists of our own."""
    fetch = ["apt-get", "-qq", "download", *packages]
    if subprocess.run(fetch, cwd=into, check=False, capture_output=True).returncode == 0:
        return
    own = cache / "apt"
    (own / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    options = [
        "-o",
        f"Dir::State::Lists={own / 'lists'}",
        "-o",
        f"Dir::Cache={own}",
        "-o",
        "Debug::NoLocking=1",
        "-o",
        "APT::Sandbox::User=",
    ]
    for command in (["apt-get", "-qq", *options, "update"], ["apt-get", *options, *fetch[1:]]):
        done = subprocess.run(command, cwd=into, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"Debian's packages {', '.join(packages)} cannot be fetched: {done.stderr}"


def _pack(site: pathlib.Path, target: pathlib.Path, *, war: bool) -> None:
    if war:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
            for path in sorted(site.rglob("*")):
                made.write(path, path.relative_to(site))
    else:
        with tarfile.open(target, "w:gz") as made_tar:
            for path in sorted(site.iterdir()):
                made_tar.add(path, path.name)
