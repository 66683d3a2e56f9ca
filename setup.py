"""Packaging of ConPaaS: the package, its run-time files (templates and scripts) and its commands."""

from __future__ import annotations

import pathlib
import shutil

import setuptools
from setuptools.command import build_py

ROOT = pathlib.Path(__file__).parent
RUNTIME_TREES = ("config", "scripts", "misc/completion", "misc/examples")
CLIENT_OBJECTS = ("user", "cloud", "application", "service", "director", "helloworld", "generic", "php", "java", "mysql")


class BuildWithRuntimeFiles(build_py.build_py):
    """Copies the run-time trees into the package, so that an installed copy works without the source tree."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return
        for tree in RUNTIME_TREES:
            target = pathlib.Path(self.build_lib) / "conpaas" / "_data" / tree
            shutil.copytree(ROOT / tree, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))


setuptools.setup(
    name="conpaas",
    version=next(
        line.split('"')[1] for line in (ROOT / "src/conpaas/__init__.py").read_text().splitlines() if line.startswith("__version__")
    ),
    description="Elastic, stateful services on plain virtual machines of any cloud, or on one laptop",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.11",
    package_dir={"": "src"},
    packages=setuptools.find_packages("src"),
    package_data={
        "": [
            *("*.cfg", "*.j2", "*.sh", "*.html", "*.css", "*.js", "*.mako", "*.ini", "*.sql", "py.typed", "*.tmpl"),
            *("templates/*.j2", "resources/*.php", "resources/java/*.java"),
            *("templates/**/*.html", "static/*.css", "static/*.js", "static/*.svg"),
        ],
        "conpaas.director.ready_made": ["*/application.json", "*/site/*"],
    },
    cmdclass={"build_py": BuildWithRuntimeFiles},
    install_requires=[
        "cheroot>=11.0",
        "requests>=2.32",
        "flask>=3.0",
        "sqlalchemy>=2.0.30",
        "alembic>=1.13",
        "jinja2>=3.1",
        "click>=8.1",
        "rich>=13.7",
        "gitpython>=3.1.43",
        "argon2-cffi>=23.1",
        "cryptography>=42",
        "python-multipart>=0.0.20",
        "jsonschema>=4.20",
        "cronsim>=2.5",
        "pymysql>=1.1",
        "authlib>=1.6",
        "joserfc>=1.0",
        "starlette>=0.45",
        "uvicorn>=0.34",
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.1"],
        "mariadb": ["pymysql>=1.1"],
        "test": [
            "pytest>=8.2",
            "pytest-rerunfailures>=15.0",
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.6",
            "mypy>=1.11",
            "types-requests>=2.32",
            "types-jsonschema>=4.20",
            "types-pymysql>=1.1",
            "pycurl>=7.46",
            "types-pycurl>=7.45",
            "psutil>=5.9",
            "import-linter>=2.0",
            "psycopg[binary]>=3.1",
            "pymysql>=1.1",
            "aiosmtpd>=1.4.6",
            "playwright>=1.49",
            "axe-playwright-python>=0.1.4",
        ],
    },
    entry_points={
        "console_scripts": [
            "cps-tools = conpaas.client.main:main",
            *(f"cps-{name} = conpaas.client.main:main_{name}" for name in CLIENT_OBJECTS),
            "cpsclient = conpaas.client.classic:main",
            "cps-new-service = conpaas.testing.scaffold:main",
            "cpsdirector = conpaas.director.main:main",
            "cpsfrontend = conpaas.frontend.main:main",
            "default-cpsmanager = conpaas.core.manager_daemon:main",
            "default-cpsagent = conpaas.core.agent_daemon:main",
        ],
        "conpaas.services": [
            "helloworld = conpaas.services.helloworld:SERVICE",
            "generic = conpaas.services.generic:SERVICE",
            "mysql = conpaas.services.mysql:SERVICE",
            "php = conpaas.services.php:SERVICE",
            "java = conpaas.services.java:SERVICE",
        ],
        "conpaas.cli": [
            "helloworld = conpaas.services.helloworld.cli:verbs",
            "generic = conpaas.services.generic.cli:verbs",
            "php = conpaas.services.php.cli:verbs",
            "java = conpaas.services.java.cli:verbs",
            "mysql = conpaas.services.mysql.cli:verbs",
        ],
    },
)
