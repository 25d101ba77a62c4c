"""HAM10000 as published (Tschandl et al. 2018): its metadata, the two image folders and, where there, lesion masks."""

from __future__ import annotations

from pathlib import Path

from skinclip.data.cases import CaseTable, DataError
from skinclip.data.files import photos_by_stem, subfolders, table_named
from skinclip.data.layouts import isic2018
from skinclip.data.layouts.base import Layout
from skinclip.data.layouts.ham_format import read_photos
from skinclip.data.tables import KnownPhotos, joined, read_labels

_MASK_ENDING = "_segmentation"


def read(folder: Path, strict: bool = False) -> CaseTable:
    """HAM10000's photos, and ISIC 2018's test photos where the folder holds them too, as Dataverse offers them.

    HAM10000 has no splits; a `split` column of one's own is read where there is one.
    """
    metadata = table_named([folder], "HAM10000_metadata")
    if metadata is None:
        raise DataError(f"{folder}: no HAM10000_metadata or HAM10000_metadata.csv")
    labels, known = read_labels(metadata, ("image_id", "dx")), KnownPhotos()
    photos = photos_by_stem(subfolders(folder, "ham10000_images"))
    if not photos:
        photos = {stem: path for stem, path in photos_by_stem([folder]).items() if not stem.endswith(_MASK_ENDING)}
    if not photos:
        raise DataError(f"{folder}: no photos in HAM10000_images_part_1/ and HAM10000_images_part_2/")
    masks = photos_by_stem(subfolders(folder, "ham10000_segmentations"), ending=_MASK_ENDING)
    own = read_photos(labels, folder, photos, masks, None, strict, known)
    return joined([own, isic2018.read_parts(folder, strict, known)])


LAYOUT = Layout(
    "ham10000",
    "HAM10000_metadata.csv with HAM10000_images_part_1/ (HAM10000)",
    lambda folder: table_named([folder], "HAM10000_metadata") is not None,
    read,
)
