"""Small catalogues of Galaxy Zoo 2 in both published layouts."""

import csv
import gzip

import numpy as np

from kempe_nb.data.galaxy_catalogue import GALAXY_DATASETS, WILLETT
from kempe_nb.data.galaxy_votes import VOTES

LAYOUTS = (WILLETT, GALAXY_DATASETS)
QUESTIONS = [list(answers) for answers in WILLETT.questions.values()]
#: The answers that lead to each of the nine classes.
PATHS = (
    ("smooth", "round"),
    ("smooth", "in between"),
    ("smooth", "cigar"),
    ("featured", "edge-on", "rounded bulge"),
    ("featured", "edge-on", "no bulge"),
    ("featured", "not edge-on", "bar", "spiral"),
    ("featured", "not edge-on", "bar", "no spiral"),
    ("featured", "not edge-on", "no bar", "spiral"),
    ("featured", "not edge-on", "no bar", "no spiral"),
)
FIRST = 587722981741363294
#: Galaxies of a class in a small catalogue.
MANY = 5


def counts_of(draw, paths, most=300):
    """Return numbers of votes, {vote: [N]}; all of a question's answers are 0 if nobody came."""
    rows = []
    for path in paths:
        row = dict.fromkeys(VOTES, 0)
        for answers in QUESTIONS:
            sure = [answer in path for answer in answers]
            if any(sure):
                law = 0.04 + draw.uniform(0.6, 1) * np.array(sure)
                row |= zip(answers, draw.multinomial(most, law / law.sum()).tolist(), strict=True)
        rows.append(row)
    return {vote: np.array([row[vote] for row in rows]) for vote in VOTES}


def small_counts(seed=0, many=MANY):
    draw = np.random.default_rng(seed)
    order = draw.permutation(np.repeat(np.arange(len(PATHS)), many))
    return counts_of(draw, [PATHS[number] for number in order])


def fractions_of(counts):
    """Return votes over all votes for the answers to a question, 0 where there are none."""
    found = {}
    for answers in QUESTIONS:
        total = sum(counts[answer] for answer in answers)
        found |= {answer: counts[answer] / np.maximum(total, 1) for answer in answers}
    return found


def columns_of(layout, counts):
    """Return a catalogue as {column: cells}, as it is published: raw numbers between others."""
    fractions, draw = fractions_of(counts), np.random.default_rng(1)
    number = "dr7objid" if layout is WILLETT else "id_str"
    found = {number: [FIRST + 11 * row for row in range(len(counts["bar"]))]}
    found["ra"] = draw.uniform(0, 360, len(counts["bar"])).tolist()
    for question, answers in layout.questions.items():
        asked = sum(counts[vote] for vote in answers) > 0
        for vote, answer in answers.items():
            stem = f"{question}_{answer}"
            raw = [repr(float(each)) for each in fractions[vote]]
            found[stem + layout.count] = counts[vote].tolist()
            if layout is WILLETT:
                found[stem + "_fraction"] = raw
                for ending in ("_weighted_fraction", "_debiased"):
                    found[stem + ending] = draw.uniform(0, 1, len(raw)).tolist()
            else:
                pairs = zip(raw, asked, strict=True)
                found[stem + "_fraction"] = [each if was else "" for each, was in pairs]
    return found


def write(path, columns):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
    return path
