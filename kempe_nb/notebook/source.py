"""Show on the page the source of a function that lives in the package: one text, two readers."""

import inspect

from IPython.display import Markdown, display


def show_source(*objects) -> None:
    """Display the source of functions or classes as highlighted Python."""
    text = "\n\n".join(inspect.getsource(item).rstrip() for item in objects)
    display(Markdown(f"```python\n{text}\n```"))
