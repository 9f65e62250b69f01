"""Images as networks and attacks take them: floating-point numbers from 0 to 1."""

import torch

from kempe_nb import data
from kempe_nb.data.image_folder import images_from_folder


def scaled_images(
    name: str, split: str, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images of a data set divided by its largest pixel, and their labels.

    Parameters
    ----------
    name : str
        One of the image sets of `data.DATASETS`, or the path of a folder with images in
        train/CLASS and test/CLASS.
    split : {"train", "test"}
    device : torch.device or str

    Returns
    -------
    float32 [N, C, H, W] within [0, 1], and int64 [N]
    """
    found = data.load(name, split) if name in data.DATASETS else images_from_folder(name, split)
    images = found.images.float()
    return (images / images.max()).to(device), found.labels.to(device)
