"""Published sets with groups, on small files in the true formats, and files of one's own."""

import numpy as np
import pytest
import torch
from PIL import Image

from kempe_nb.data.annotated_groups import (
    celeba,
    feature_file,
    multinli,
    refuse_overlap,
    waterbirds,
)
from kempe_nb.data.errors import DataError
from kempe_nb.data.torchvision_import import import_torchvision

WATERBIRDS = """img_id,img_filename,y,split,place,place_filename
1,001.Black/one.jpg,1,0,1,/o/ocean/1.jpg
2,001.Black/two.jpg,0,0,1,/o/ocean/2.jpg
3,002.White/three.jpg,0,1,0,/f/forest/3.jpg
4,002.White/four.jpg,1,2,0,/f/forest/4.jpg
"""
MULTINLI = """,gold_label,sentence2_has_negation,split
0,1,0,0
1,0,1,2
2,2,1,1
"""


def picture(path, colour):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), colour).save(path)


@pytest.fixture
def birds(tmp_path):
    (tmp_path / "metadata.csv").write_text(WATERBIRDS)
    for name in ("001.Black/one.jpg", "001.Black/two.jpg", "002.White/three.jpg"):
        picture(tmp_path / name, (9, 9, 200))
    picture(tmp_path / "002.White/four.jpg", (250, 0, 0))
    return tmp_path


def test_waterbirds_have_groups_of_bird_and_ground(birds):
    found = waterbirds(birds)
    assert found.labels.tolist() == [1, 0, 0, 1] and found.groups.tolist() == [3, 1, 0, 2]
    assert found.group_names[1] == "landbird on water"
    assert found.rows("train").tolist() == [0, 1] and found.rows("test").tolist() == [3]
    assert found.counts("train").tolist() == [0, 1, 0, 1]
    assert found.image(3).getpixel((2, 2))[0] > 200 and found.features is None
    with pytest.raises(ValueError, match="split is 'valid'; accepted: 'train', 'val', 'test'"):
        found.rows("valid")


def test_a_missing_table_says_where_it_is_published(tmp_path):
    with pytest.raises(DataError, match=r"metadata.csv is missing.*kohpangwei/group_DRO"):
        waterbirds(tmp_path)
    with pytest.raises(DataError, match=r"metadata_random.csv is missing.*group_DRO"):
        multinli(tmp_path)
    with pytest.raises(DataError, match=r"celeba is missing or damaged.*mmlab.ie.cuhk.edu.hk"):
        celeba(tmp_path)


def test_missing_and_broken_images_are_named(birds):
    (birds / "001.Black/two.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"two.jpg is not a readable image"):
        waterbirds(birds).image(1)
    (birds / "001.Black/two.jpg").unlink()
    with pytest.raises(DataError, match=r"two.jpg and 0 other images are missing"):
        waterbirds(birds)


@pytest.mark.parametrize(
    "old, new, said",
    [
        (",y,", ",label,", "has no column 'y'"),
        ("one.jpg,1,0,1", "one.jpg,2,0,1", "line 2: y is '2'; accepted is 0 to 1"),
        ("two.jpg,0,0,1", "two.jpg,0,3,1", "line 3: split is '3'; accepted is 0 to 2"),
        ("two.jpg,0,0,1", "two.jpg,0,0,", "line 3: place is ''; accepted is 0 to 1"),
    ],
)
def test_a_malformed_table_is_refused_by_line(birds, old, new, said):
    (birds / "metadata.csv").write_text(WATERBIRDS.replace(old, new))
    with pytest.raises(DataError, match=said):
        waterbirds(birds)


def test_a_table_that_is_no_text_is_refused(birds):
    (birds / "metadata.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not a table of text"):
        waterbirds(birds)


def test_a_table_without_rows_is_refused(birds):
    (birds / "metadata.csv").write_text(WATERBIRDS.split("\n")[0] + "\n")
    with pytest.raises(DataError, match="has no rows"):
        waterbirds(birds)


def test_multinli_has_groups_of_label_and_negation(tmp_path):
    (tmp_path / "metadata_random.csv").write_text(MULTINLI)
    found = multinli(tmp_path)
    assert found.groups.tolist() == [2, 1, 5] and found.splits.tolist() == [0, 2, 1]
    assert found.group_names[1] == "contradiction, negation" and found.features is None
    np.save(tmp_path / "features.npy", np.arange(6, dtype=np.float16).reshape(3, 2))
    assert multinli(tmp_path).features.tolist() == [[0, 1], [2, 3], [4, 5]]
    np.save(tmp_path / "features.npy", np.zeros((4, 2)))
    with pytest.raises(DataError, match=r"features are float64 \(4, 2\); accepted are .* \[3, D\]"):
        multinli(tmp_path)
    for content in (b"", b"no array", b"PK\x03\x04 torn"):
        (tmp_path / "features.npy").write_bytes(content)
        with pytest.raises(DataError, match="is not a file of features"):
            multinli(tmp_path)
    write(tmp_path / "many.npz").rename(tmp_path / "features.npy")
    with pytest.raises(DataError, match="holds several arrays"):
        multinli(tmp_path)


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("0,1,0,0", "0,3,0,0", "line 2: gold_label is '3'; accepted is 0 to 2"),
        ("0,1,0,0", "0,1,2,0", "line 2: sentence2_has_negation is '2'; accepted is 0 to 1"),
    ],
)
def test_a_malformed_table_of_multinli_is_refused_by_line(tmp_path, old, new, said):
    (tmp_path / "metadata_random.csv").write_text(MULTINLI.replace(old, new))
    with pytest.raises(DataError, match=said):
        multinli(tmp_path)


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Three faces in the published format, with the checksums of these small files."""
    place = tmp_path / "celeba"
    names = ["5_o_Clock_Shadow", "Blond_Hair", "Male"]
    attributes = "3\n" + " ".join(names) + "\n"
    attributes += "000001.jpg -1  1 -1\n000002.jpg  1 -1  1\n000003.jpg -1  1  1\n"
    rows = ["000001.jpg", "000002.jpg", "000003.jpg"]
    tables = {
        "list_attr_celeba.txt": attributes,
        "list_eval_partition.txt": "".join(f"{n} {k}\n" for k, n in enumerate(rows)),
        "identity_CelebA.txt": "".join(f"{n} 7\n" for n in rows),
        "list_bbox_celeba.txt": "3\nid x y\n" + "".join(f"{n} 1 2 3 4\n" for n in rows),
        "list_landmarks_align_celeba.txt": "3\nx y\n" + "".join(f"{n} 1 2\n" for n in rows),
    }
    for number, name in enumerate(rows):
        picture(place / "img_align_celeba" / name, (100 * number, 0, 0))
    source = import_torchvision().datasets.CelebA
    sums = []
    for file, _, name in source.file_list:
        if name in tables:
            (place / name).write_text(tables[name])
            sums.append((file, None, name))
    monkeypatch.setattr(source, "file_list", sums)
    return tmp_path


def test_celeba_has_groups_of_hair_and_sex(faces):
    found = celeba(faces)
    assert found.labels.tolist() == [1, 0, 1] and found.groups.tolist() == [2, 1, 3]
    assert found.splits.tolist() == [0, 1, 2]
    assert found.group_names[int(found.groups[2])] == "blond men"
    assert found.image(2).getpixel((1, 1))[0] > 150


def test_a_missing_face_is_named(faces):
    (faces / "celeba" / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(DataError, match=r"000002.jpg and 0 other images are missing"):
        celeba(faces)


def write(path, **changed):
    arrays = {
        "x": np.arange(12, dtype=np.float32).reshape(6, 2),
        "y": np.array([0, 1, 0, 1, 0, 1]),
        "group": np.array([0, 3, 1, 2, 0, 3]),
        "split": np.array(["train", "train", "val", "val", "test", "test"]),
    }
    np.savez(path, **{k: v for k, v in (arrays | changed).items() if v is not None})
    return path


def test_a_feature_file_is_read_as_it_is(tmp_path):
    found = feature_file(write(tmp_path / "birds.npz"))
    assert found.name == "birds" and found.features.dtype == torch.float32
    assert found.groups.tolist() == [0, 3, 1, 2, 0, 3]
    assert found.rows("val").tolist() == [2, 3] and len(found.group_names) == 4
    numbers = feature_file(write(tmp_path / "n.npz", split=np.array([0, 0, 1, 1, 2, 2])))
    assert torch.equal(numbers.splits, found.splits)
    with pytest.raises(DataError, match="has no images"):
        found.image(0)


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"group": None}, "lacks 'group"),
        ({"x": np.zeros((5, 2))}, r"features are float64 \(5, 2\)"),
        ({"x": np.arange(6.0)}, r"features are float64 \(6,\)"),
        ({"x": np.full((6, 2), np.nan)}, "features hold 12 elements"),
        ({"y": np.zeros(6)}, "y is float64"),
        ({"group": np.array([0, 1, 2, 3, 0, -1])}, "group is int64"),
        ({"split": np.array(["train"] * 5 + ["dev"])}, "split holds 'dev'"),
        ({"split": np.array([0, 0, 1, 1, 2, 3])}, "split holds 3"),
        ({"split": np.array([["train"]] * 6)}, "split is <U5"),
        ({"x": np.full((6, 2), 1e300)}, "features hold 12 elements"),
        ({"y": np.array(3)}, "features are float32"),
        ({"group": np.full(6, 2**64 - 1, np.uint64)}, "group is uint64"),
        ({"x": np.ones((6, 2))}, "4 of 4 annotated samples are also test samples"),
    ],
)
def test_a_malformed_feature_file_is_refused(tmp_path, changed, said):
    with pytest.raises(DataError, match=said):
        feature_file(write(tmp_path / "f.npz", **changed))


def test_what_is_no_feature_file_is_refused(tmp_path):
    for content in (b"", b"no archive"):
        (tmp_path / "f.npz").write_bytes(content)
        with pytest.raises(DataError, match="is not a file of features"):
            feature_file(tmp_path / "f.npz")
    with pytest.raises(DataError, match="is not a file of features"):
        feature_file(tmp_path / "none.npz")
    np.save(tmp_path / "one.npy", np.zeros((6, 2)))
    with pytest.raises(DataError, match="it holds a single array"):
        feature_file(tmp_path / "one.npy")
    whole = write(tmp_path / "whole.npz").read_bytes()
    (tmp_path / "torn.npz").write_bytes(whole[:200] + bytes(60) + whole[260:])
    with pytest.raises(DataError, match="is not a file of features"):
        feature_file(tmp_path / "torn.npz")
    np.savez(tmp_path / "o.npz", x=np.array([{}], dtype=object), y=[0], group=[0], split=[0])
    with pytest.raises(DataError, match="is not a file of features"):
        feature_file(tmp_path / "o.npz")


def test_shared_samples_are_counted_by_their_bytes():
    first = torch.arange(6.0).reshape(3, 2)
    refuse_overlap(first, first + 1, "here")
    with pytest.raises(ValueError, match="annotated is torch.float32 and test torch.float64"):
        refuse_overlap(first, first.double(), "here")
    with pytest.raises(DataError, match="here: 2 of 3 annotated"):
        refuse_overlap(first, first[1:], "here")
