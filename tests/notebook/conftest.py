"""What the tests of the notebook tools share."""

import pytest
from matplotlib import pyplot as plt

from kempe_nb.notebook import figures


@pytest.fixture(autouse=True)
def _style():
    """Draw in the book's style, and leave neither the style nor a figure behind."""
    with plt.rc_context():
        figures.use_style()
        yield
    plt.close("all")
