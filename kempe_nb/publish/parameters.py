"""The parameters of a notebook: what it declares, and what a run may set."""

import ast
from collections.abc import Mapping
from pathlib import Path

import papermill

from kempe_nb.notebook.profile import PROFILES
from kempe_nb.publish.project import UsageError, name_of, read_notebook, tags_of


def declared_parameters(path: Path) -> dict[str, object]:
    """Return the parameters that a chapter declares, with their default values.

    Raises
    ------
    UsageError
        When the notebook has no cell tagged `parameters`, or one that does not declare `profile`.
    """
    tags = [tag for cell in read_notebook(path).cells for tag in tags_of(cell)]
    if "parameters" not in tags:
        raise UsageError(f"{name_of(path)} has no cell tagged 'parameters'")
    try:
        found = papermill.inspect_notebook(str(path))
    except Exception as error:
        raise UsageError(f"papermill cannot read the parameters of {path}: {error}") from error
    parameters = {name: _python_value(entry["default"]) for name, entry in found.items()}
    if "profile" not in parameters:
        raise UsageError(f"{name_of(path)} does not declare 'profile' in its parameters cell")
    return parameters


def checked_parameters(path: Path, profile: str, given: Mapping[str, str]) -> dict[str, object]:
    """Return the parameters of a run; refuse what the chapter does not declare.

    A value is written as in Python, a text without quotes, and must have the type of the declared
    default; an integer is taken for a float, and a default of None takes any value.
    """
    if profile not in PROFILES:
        raise UsageError(f"profile is {profile!r}; accepted are {', '.join(PROFILES)}")
    declared = declared_parameters(path)
    chosen: dict[str, object] = {"profile": profile}
    accepted = sorted(set(declared) - {"profile"})
    for name, text in given.items():
        if name == "profile":
            raise UsageError("parameter 'profile' is set by --profile")
        if name not in declared:
            names = ", ".join(accepted) or "none"
            raise UsageError(
                f"{name_of(path)} declares no parameter {name!r}; accepted are {names}"
            )
        default = declared[name]
        value = text if isinstance(default, str) else _python_value(text)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise UsageError(
                f"parameter {name} is {text!r}; accepted is a value of type "
                f"{type(default).__name__}, like {default!r}"
            )
        chosen[name] = value
    return chosen


def _python_value(text: str) -> object:
    """Return the value of a Python literal; what is none stays text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
