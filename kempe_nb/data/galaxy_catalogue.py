"""Catalogues of Galaxy Zoo 2 with raw fractions of votes, in the two layouts that are published.

Nothing is downloaded here. The table of Willett and others (MNRAS 435, 2835, 2013; debiased anew in
MNRAS 461, 3663, 2016) is CSV, gz2_hart16.csv.gz at data.galaxyzoo.org; that of the package
galaxy-datasets is parquet.
"""

import csv
import gzip
import os
import zlib
from array import array
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kempe_nb.data.errors import DataError
from kempe_nb.data.galaxy_votes import VOTES


class Layout(NamedTuple):
    """How a catalogue names its columns.

    Attributes
    ----------
    name : str
    count : str
        Ending of a column with numbers of votes.
    questions : dict
        Question -> {one of `VOTES`: the answer's name}.
    """

    name: str
    count: str
    questions: dict[str, dict[str, str]]

    def columns(self, ending: str) -> dict[str, str]:
        """Return the column of each of `VOTES` with an ending."""
        return {
            vote: f"{question}_{answer}{ending}"
            for question, answers in self.questions.items()
            for vote, answer in answers.items()
        }


#: Of a column with raw fractions; "_weighted_fraction" and "_debiased" are other numbers.
FRACTION = "_fraction"
# Names seen in HaowenGuan/Galaxy-Dataset-Distillation, explore_gz2.py, which makes the classes from
# these fractions, and with counts in GalaxyZoo2Tables.sql of SDSS's SkyServer.
WILLETT = Layout(
    "Willett and others",
    "_count",
    {
        "t01_smooth_or_features": {
            "smooth": "a01_smooth",
            "featured": "a02_features_or_disk",
            "artifact": "a03_star_or_artifact",
        },
        "t07_rounded": {
            "round": "a16_completely_round",
            "in between": "a17_in_between",
            "cigar": "a18_cigar_shaped",
        },
        "t02_edgeon": {"edge-on": "a04_yes", "not edge-on": "a05_no"},
        "t09_bulge_shape": {
            "rounded bulge": "a25_rounded",
            "boxy bulge": "a26_boxy",
            "no bulge": "a27_no_bulge",
        },
        "t03_bar": {"bar": "a06_bar", "no bar": "a07_no_bar"},
        "t04_spiral": {"spiral": "a08_spiral", "no spiral": "a09_no_spiral"},
    },
)
# Names seen in mwalmsley/galaxy-datasets, replication/notebooks/gz2_c_split.ipynb, which writes the
# published files.
GALAXY_DATASETS = Layout(
    "galaxy-datasets",
    "",
    {
        "smooth-or-featured-gz2": {
            "smooth": "smooth",
            "featured": "featured-or-disk",
            "artifact": "artifact",
        },
        "how-rounded-gz2": {"round": "round", "in between": "in-between", "cigar": "cigar"},
        "disk-edge-on-gz2": {"edge-on": "yes", "not edge-on": "no"},
        "bulge-shape-gz2": {
            "rounded bulge": "round",
            "boxy bulge": "boxy",
            "no bulge": "no-bulge",
        },
        "bar-gz2": {"bar": "yes", "no bar": "no"},
        "has-spiral-arms-gz2": {"spiral": "yes", "no spiral": "no"},
    },
)
LAYOUTS = (WILLETT, GALAXY_DATASETS)
#: Columns with the number of a galaxy in SDSS's seventh release. In gz2_c_split.ipynb id_str is it.
IDS = ("dr7objid", "id_str")
#: Published fractions have three decimals. A column is a wrong one if more than this share of its
#: rows is off by more than this.
TOLERANCE, SHARE = 0.01, 0.01
PARQUET, GZIP, FITS = b"PAR1", b"\x1f\x8b", b"SIMP"
CONVERSIONS = {
    PARQUET: "is parquet, which pyarrow reads and which is not installed; accepted is CSV, as of "
    "pandas.read_parquet(FILE).to_csv('gz2.csv.gz', index=False)",
    FITS: "is FITS; accepted is CSV, as of "
    "astropy.table.Table.read(FILE).write('gz2.csv', format='ascii.csv')",
}
UNREADABLE = (OSError, EOFError, ValueError, csv.Error, zlib.error)


class _Table(NamedTuple):
    """What a catalogue holds: its layout, ids int64 [N], and wanted columns, float64 [N] each."""

    layout: Layout
    ids: np.ndarray
    columns: dict[str, np.ndarray]


def votes_from_catalogue(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Read raw fractions of votes, as `class_scores` takes them, and the galaxies' numbers.

    Accepted are `LAYOUTS` as CSV in UTF-8, also packed by gzip, and as parquet where pyarrow is
    installed. Other columns are passed over. Of a question that nobody reached, galaxy-datasets
    divides zero votes by zero and Willett and others write zero; here it is zero. A score is a
    product with the answer that leads to a question, and if nobody gave that, it is zero anyway.

    Where a file has the numbers of votes, the fractions are compared with them, otherwise their
    sum over the answers to a question with one: so a column of weighted or debiased fractions
    under the name of raw ones is noticed if it is wrong in more than one row of a hundred.

    Returns
    -------
    fractions : dict
        Each of `VOTES` -> float64 [N].
    ids : int64 [N]
        In SDSS's seventh release, in the order of the file.

    Raises
    ------
    DataError
        If the file cannot be read, lacks columns, which are named, or a row; for cells that are
        none, with their row, counted from 1 without the header; for columns of other fractions.
    """
    path = Path(path).expanduser()
    kind = _kind(path)
    if kind == FITS:
        raise DataError(f"{path} {CONVERSIONS[FITS]}")
    table = _from_parquet(path) if kind == PARQUET else _from_text(path, packed=kind == GZIP)
    if not len(table.ids):
        raise DataError(f"{path} has no rows; accepted is one row for each galaxy")
    columns = table.layout.columns(FRACTION)
    for question, answers in table.layout.questions.items():
        names = [columns[vote] for vote in answers]
        _fill_unreached([table.columns[name] for name in names])
        for name in names:
            _refuse_out_of_range(table, name, path)
        _refuse_other_fractions(table, question, path)
    return {vote: table.columns[columns[vote]] for vote in VOTES}, table.ids


def _kind(path: Path) -> bytes:
    """Return the beginning of a file that says what it is, or no bytes for text."""
    try:
        with path.open("rb") as file:
            begin = file.read(4)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return next((kind for kind in (PARQUET, GZIP, FITS) if begin.startswith(kind)), b"")


def _chosen(header: Sequence[str], path: Path) -> tuple[Layout, str, list[str]]:
    """Return the layout of a header, the column of numbers, and the columns to be read."""
    wanted = [list(layout.columns(FRACTION).values()) for layout in LAYOUTS]
    lacking = [[name for name in names if name not in header] for names in wanted]
    best = min(range(len(LAYOUTS)), key=lambda number: len(lacking[number]))
    layout = LAYOUTS[best]
    if lacking[best]:
        raise DataError(
            f"{path} lacks the columns {', '.join(lacking[best])}; accepted are the raw fractions "
            f"of {layout.name}, for which weighted or debiased ones are no substitute"
        )
    number = next((name for name in IDS if name in header), None)
    if number is None:
        raise DataError(f"{path} lacks the galaxies' numbers; accepted is a column {IDS}")
    counts = [name for name in layout.columns(layout.count).values() if name in header]
    return layout, number, wanted[best] + counts


def _from_text(path: Path, packed: bool) -> _Table:
    """Read CSV, of which only the wanted cells are kept."""
    cells, ids = array("d"), array("q")
    try:
        with (gzip.open if packed else open)(path, "rt", newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            layout, number, names = _chosen(header, path)
            place, pick = header.index(number), itemgetter(*map(header.index, names))
            for row, line in enumerate(filter(None, rows), 1):
                if len(line) != len(header):
                    raise DataError(
                        f"{path}, row {row} has {len(line)} cells; accepted are {len(header)}, as "
                        "in the header"
                    )
                ids.append(_checked_id(line[place], number, row, path))
                cells.extend(_checked_cells(pick(line), names, row, path))
    except UNREADABLE as error:
        raise DataError(f"{path} is not a readable table: {error}") from error
    values = np.array(cells, np.float64).reshape(len(ids), len(names)).T.copy()
    return _Table(layout, np.array(ids, np.int64), dict(zip(names, values, strict=True)))


def _from_parquet(path: Path) -> _Table:
    """Read the wanted columns of parquet."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{path} {CONVERSIONS[PARQUET]}") from error
    try:
        layout, number, names = _chosen(parquet.read_schema(path).names, path)
        table = parquet.read_table(path, columns=[number, *names])
        # A copy, as pyarrow may give memory that cannot be written.
        columns = {name: np.array(table.column(name).to_numpy(), np.float64) for name in names}
        ids = table.column(number).to_pylist()
    except UNREADABLE as error:
        raise DataError(f"{path} is not a readable table: {error}") from error
    ids = [_checked_id(str(value), number, row, path) for row, value in enumerate(ids, 1)]
    return _Table(layout, np.array(ids, np.int64), columns)


def _checked_id(cell: str, name: str, row: int, path: Path) -> int:
    # A spreadsheet rounds such numbers to 15 digits, and pandas writes them with a point if one is
    # missing: both would be other galaxies.
    if not (cell.isascii() and cell.isdigit() and int(cell) < 2**63):
        raise DataError(f"{path}, row {row}: {name} is {cell!r}; accepted are all of its digits")
    return int(cell)


def _checked_cells(cells: Sequence[str], names: Sequence[str], row: int, path: Path) -> list[float]:
    """Return cells as numbers, an empty one as NaN."""
    found = []
    for name, cell in zip(names, cells, strict=True):
        try:
            found.append(float(cell or "nan"))
        except ValueError as error:
            raise DataError(
                f"{path}, row {row}: {name} is {cell!r}; accepted are numbers and empty cells"
            ) from error
    return found


def _fill_unreached(answers: Sequence[np.ndarray]) -> None:
    """Put zero, in place, where no answer to a question has a fraction."""
    unreached = np.isnan(answers).all(0)
    for fractions in answers:
        fractions[unreached] = 0


def _refuse_out_of_range(table: _Table, name: str, path: Path) -> None:
    fractions = table.columns[name]
    wrong = np.flatnonzero(~((fractions >= 0) & (fractions <= 1)))
    if len(wrong):
        row = wrong[0]
        raise DataError(
            f"{path}, row {row + 1}, galaxy {table.ids[row]}: {name} is {float(fractions[row])}; "
            "accepted is 0 to 1, or none for all answers to the question"
        )


def _refuse_other_fractions(table: _Table, question: str, path: Path) -> None:
    """Refuse fractions that are not those of the votes, as far as a file tells."""
    layout, votes = table.layout, table.layout.questions[question]
    names = [layout.columns(FRACTION)[vote] for vote in votes]
    fractions = np.array([table.columns[name] for name in names])
    counts = [table.columns.get(layout.columns(layout.count)[vote]) for vote in votes]
    if all(each is not None for each in counts):
        total = np.sum(counts, 0)
        asked = total > 0
        off = np.abs(fractions[:, asked] - np.array(counts)[:, asked] / total[asked]) > TOLERANCE
        name, said = names[off.sum(1).argmax()], "is not the share of its votes"
    else:
        total = fractions.sum(0)
        asked = total > 0
        off = np.abs(total[asked] - 1)[None] > 2 * TOLERANCE
        name, said = " + ".join(names), "is not 1"
    wrong = int(off.any(0).sum())
    if wrong > SHARE * asked.sum():
        raise DataError(
            f"{path}: {name} {said} in {wrong} of {asked.sum()} rows; accepted are raw fractions, "
            "neither weighted nor debiased"
        )
