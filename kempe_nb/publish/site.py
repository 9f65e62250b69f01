"""Build the static site with Jupyter Book from the staged sources, with warnings as errors."""

import shutil
import subprocess
import sys
from pathlib import Path

from kempe_nb.publish.execute import Task
from kempe_nb.publish.project import Project
from kempe_nb.publish.stage import stage


def build_site(project: Project, tasks: list[Task]) -> Path:
    """Stage the sources, build the site and return its first page.

    Raises
    ------
    subprocess.CalledProcessError
        When Sphinx reports an error or a warning.
    """
    source = stage(project, tasks)
    command = [
        *(str(Path(sys.executable).with_name("jupyter-book")), "build", str(source), "--quiet"),
        *("--config", str(project.root / "_config.yml"), "--toc", str(project.root / "_toc.yml")),
        *("--path-output", str(project.root), "-W", "-n", "--keep-going"),
    ]
    try:
        subprocess.run(command, cwd=project.root, check=True)
    except subprocess.CalledProcessError:
        # Sphinx keeps the pages that it warned about and would not warn about them again.
        shutil.rmtree(project.build / ".doctrees", ignore_errors=True)
        raise
    return project.build / "html" / "index.html"
