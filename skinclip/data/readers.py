"""Readers of labelled photo folders: ISIC 2018 Task 3, HAM10000, Derm7pt as published, and a plain manifest.

    table = read_cases(folder)        # the layout is recognised by its label file
    tables = discover(root)           # every subfolder with a known layout, by name

A reader never guesses: a missing label is None, and a row that cannot be used (missing file, unknown diagnosis or
state, impossible age, duplicate) is left out and named with its line in `problems`, or stops the reading where
`strict`. Columns that leak the answer are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from skinclip.core import vocabulary
from skinclip.core.assessment import Context
from skinclip.data import tables
from skinclip.data.cases import Case, CaseTable, DataError
from skinclip.data.tables import BadRow, FileFinder, LabelFile, Row, Seen, collect, read_labels

__all__ = ["LAYOUTS", "DataError", "detect_layout", "discover", "read_cases"]

EXPECTED = (
    "expected manifest.csv (plain manifest), meta/meta.csv with images/ (Derm7pt), HAM10000_metadata.csv with "
    "HAM10000_images_part_1/ (HAM10000), or ISIC2018_Task3_Test_Input/ with ISIC2018_Task3_Test_GroundTruth/ "
    "(ISIC 2018 Task 3; Training and Validation likewise)"
)
ISIC2018_SPLITS = {"Training": "train", "Validation": "valid", "Test": "test"}
DERM7PT_INDEX_FILES = {"train": "train_indexes.csv", "valid": "valid_indexes.csv", "test": "test_indexes.csv"}


def read_manifest(folder: Path, strict: bool = False) -> CaseTable:
    """`manifest.csv` with `image` (a path relative to it) and, all optional, `image_id`, `diagnosis`, `malignant`,
    `mask`, `age`, `sex`, `localization`, `lesion_id`, `patient_id`, `split`, `group` and the seven criteria.
    """
    labels = read_labels(folder / "manifest.csv", ("image",))
    finder, source = FileFinder(folder), folder.name
    ids = tables.image_ids(name for row in labels.rows if (name := row.get("image")))

    def to_case(row: Row) -> Case:
        image = finder.require(row, "image")
        image_id = row.get("image_id") or ids[row.cells["image"]]
        diagnosis = tables.parse_code(row.word("diagnosis"))
        return Case(
            image=image,
            image_id=image_id,
            source=source,
            lesion_id=row.get("lesion_id") or row.get("patient_id") or image_id,
            diagnosis=diagnosis,
            mask=finder.require(row, "mask") if row.get("mask") else None,
            context=_context(row, "localization"),
            split=tables.parse_split(row.get("split")),
            group=row.get("group"),
            malignant=tables.parse_malignant(row.word("malignant"), diagnosis),
            criteria=tables.parse_criteria(row),
            patient_id=row.get("patient_id"),
        )

    return collect(labels, to_case, strict)


def read_derm7pt(folder: Path, strict: bool = False) -> CaseTable:
    """Derm7pt as published: `meta/meta.csv`, `images/`, splits by a `split` column or by the official index files.

    The dermoscopic photo (`derm`) is the case's image, the clinical one (`clinic`) is kept beside it where its file
    is there. The official case number is its id. A diagnosis without a HAM10000 class (lentigo, melanosis,
    miscellaneous) keeps its group alone.
    """
    labels = read_labels(folder / "meta" / "meta.csv", ("derm", "diagnosis"))
    finder, source = FileFinder(_subfolder(folder, "images")), folder.name
    ids = tables.image_ids(name for row in labels.rows if (name := row.get("derm")))
    official_split = {} if "split" in labels.columns else _derm7pt_splits(folder / "meta", labels)

    def to_case(row: Row) -> Case:
        image = finder.require(row, "derm")
        name = row.word("diagnosis")
        if name is not None and name not in vocabulary.DERM7PT_TO_CODE:
            raise BadRow(f"unknown diagnosis {name!r}; not one of Derm7pt's {len(vocabulary.DERM7PT_TO_CODE)}")
        diagnosis = vocabulary.DERM7PT_TO_CODE[name] if name else None
        clinic = row.get("clinic")
        number = row.get("case_num") or ids[row.cells["derm"]]
        return Case(
            image=image,
            image_id=number,
            source=source,
            lesion_id=row.get("case_id") or number,
            diagnosis=diagnosis,
            context=_context(row, "location"),
            split=tables.parse_split(row.get("split")) or official_split.get(row.number),
            malignant=tables.parse_malignant(None, diagnosis),
            criteria=tables.parse_criteria(row),
            diagnosis_group=vocabulary.DERM7PT_DIAGNOSIS_GROUP[name] if name else None,
            clinical_image=finder.find(clinic) if clinic else None,
        )

    return collect(labels, to_case, strict)


def _derm7pt_splits(meta: Path, labels: LabelFile) -> dict[int, str]:
    """Row number -> split. The published files count rows of the whole meta.csv from 0.

    A part of the set keeps those numbers in a column `index`, or one lower than `case_num`.
    """
    number_of = {row.number: row.number for row in labels.rows}
    if "index" in labels.columns:
        number_of = _derm7pt_numbers(labels, "index", 0)
    splits: dict[int, str] = {}
    for split, name in DERM7PT_INDEX_FILES.items():
        if not (meta / name).is_file():
            continue
        for row in read_labels(meta / name, ("indexes",)).rows:
            index = _whole_number(row.cells["indexes"])
            if index is None or splits.get(index, split) != split:
                raise DataError(f"{name} line {row.line}: {row.cells['indexes']!r} is no index, or in two splits")
            splits[index] = split
    if splits and "index" not in labels.columns and max(splits) >= len(labels.rows):
        if "case_num" not in labels.columns:
            raise DataError(f"{labels.path}: {len(labels.rows)} rows, but the index files name row {max(splits)}")
        number_of = _derm7pt_numbers(labels, "case_num", 1)
    return {number: splits[index] for number, index in number_of.items() if index in splits}


def _derm7pt_numbers(labels: LabelFile, column: str, first: int) -> dict[int, int]:
    numbers = {row.number: _whole_number(row.cells.get(column, "")) for row in labels.rows}
    return {row: number - first for row, number in numbers.items() if number is not None}


def _whole_number(text: str) -> int | None:
    try:
        return int(float(text))
    except ValueError:
        return None


def read_ham10000(folder: Path, strict: bool = False) -> CaseTable:
    """HAM10000 as published: its metadata, the two image folders and, where there, the lesion masks.

    The published set has no splits; a `split` column of one's own is read where there is one.
    """
    metadata = _ham10000_metadata(folder)
    if metadata is None:
        raise DataError(f"{folder}: no HAM10000_metadata or HAM10000_metadata.csv")
    labels = read_labels(metadata, ("image_id", "dx"))
    photos = tables.photos_by_stem(_folders(folder, "ham10000_images"))
    if not photos:
        raise DataError(f"{folder}: no photos in HAM10000_images_part_1/ and HAM10000_images_part_2/")
    masks = tables.photos_by_stem(_folders(folder, "ham10000_segmentations"), ending="_segmentation")
    source = folder.name

    def to_case(row: Row) -> Case:
        image_id = _image_id(row, "image_id")
        diagnosis = tables.parse_code(row.word("dx"))
        return Case(
            image=_photo(photos, image_id),
            image_id=image_id,
            source=source,
            lesion_id=row.get("lesion_id") or image_id,
            diagnosis=diagnosis,
            mask=masks.get(image_id.lower()),
            context=_context(row, "localization"),
            split=tables.parse_split(row.get("split")),
            malignant=tables.parse_malignant(None, diagnosis),
        )

    return collect(labels, to_case, strict)


def read_isic2018(folder: Path, strict: bool = False) -> CaseTable:
    """ISIC 2018 Task 3 as published; whichever of Training, Validation and Test are there, split by folder name."""
    seen, source = Seen(), folder.name
    found: list[CaseTable] = []
    for name, split in ISIC2018_SPLITS.items():
        inputs = folder / f"ISIC2018_Task3_{name}_Input"
        if inputs.is_dir():
            found.append(_read_isic2018_split(folder, source, name, split, strict, seen))
    if not found:
        raise DataError(f"{folder}: no ISIC2018_Task3_Training_Input/, _Validation_Input/ or _Test_Input/")
    return CaseTable(
        tuple(case for table in found for case in table.cases),
        tuple(problem for table in found for problem in table.problems),
    )


def _read_isic2018_split(folder: Path, source: str, name: str, split: str, strict: bool, seen: Seen) -> CaseTable:
    labels = read_labels(_isic2018_truth(folder, name), ("image", *(c.lower() for c in vocabulary.ISIC2018_COLUMNS)))
    photos = tables.photos_by_stem([folder / f"ISIC2018_Task3_{name}_Input"])
    lesions = _isic2018_lesions(folder, name)

    def to_case(row: Row) -> Case:
        image_id = _image_id(row, "image")
        diagnosis = _one_hot(row)
        return Case(
            image=_photo(photos, image_id),
            image_id=image_id,
            source=source,
            lesion_id=lesions.get(image_id, image_id),
            diagnosis=diagnosis,
            split=split,
            malignant=tables.parse_malignant(None, diagnosis),
        )

    return collect(labels, to_case, strict, seen)


def _isic2018_truth(folder: Path, name: str) -> Path:
    """The split's ground truth: the official file name, else the one table in its folder."""
    truth = folder / f"ISIC2018_Task3_{name}_GroundTruth"
    official = truth / f"ISIC2018_Task3_{name}_GroundTruth.csv"
    if official.is_file():
        return official
    others = [path for path in sorted(truth.glob("*.csv")) if "LesionGroupings" not in path.name]
    if len(others) == 1:
        return others[0]
    raise DataError(f"{folder}: no {truth.name}/{official.name} beside ISIC2018_Task3_{name}_Input/")


def _isic2018_lesions(folder: Path, name: str) -> dict[str, str]:
    """image -> lesion id. Published for Training only, as a file beside the folders or in the ground truth's."""
    file_name = f"ISIC2018_Task3_{name}_LesionGroupings.csv"
    for path in (folder / file_name, folder / f"ISIC2018_Task3_{name}_GroundTruth" / file_name):
        if path.is_file():
            rows = read_labels(path, ("image", "lesion_id")).rows
            return {row.cells["image"]: lesion for row in rows if not row.problem and (lesion := row.get("lesion_id"))}
    return {}


def _one_hot(row: Row) -> str | None:
    """The one class marked 1; None where all seven cells are empty. Raises BadRow for anything else."""
    cells = {code: row.get(column.lower()) for column, code in vocabulary.ISIC2018_COLUMNS.items()}
    if not any(cells.values()):
        return None
    try:
        values = {code: float(cell or "") for code, cell in cells.items()}
    except ValueError:
        values = {}
    marked = [code for code, value in values.items() if value == 1]
    if len(marked) != 1 or any(value not in (0, 1) for value in values.values()):
        raise BadRow(f"the seven classes are not one 1 and six 0: {', '.join(str(cell) for cell in cells.values())}")
    return marked[0]


def _context(row: Row, site_column: str) -> Context:
    return Context(
        age=tables.parse_age(row.get("age")),
        sex=tables.parse_sex(row.word("sex")),
        site=vocabulary.canonical_site(row.get(site_column)),
    )


def _image_id(row: Row, column: str) -> str:
    name = row.get(column)
    if name is None:
        raise BadRow(f"no {column}")
    return Path(name).stem if Path(name).suffix.lower() in tables.PHOTO_SUFFIXES else name


def _photo(photos: dict[str, Path], image_id: str) -> Path:
    if image_id.lower() not in photos:
        raise BadRow(f"image {image_id} not found")
    return photos[image_id.lower()]


def _folders(folder: Path, start: str) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name.lower().startswith(start))


def _subfolder(folder: Path, name: str) -> Path:
    for path in _folders(folder, name):
        if path.name.lower() == name:
            return path
    raise DataError(f"{folder}: no folder {name}/")


def _ham10000_metadata(folder: Path) -> Path | None:
    names = {"ham10000_metadata", "ham10000_metadata.csv", "ham10000_metadata.tab", "ham10000_metadata.txt"}
    files = sorted(path for path in folder.iterdir() if path.name.lower() in names and path.is_file())
    return files[0] if files else None


LAYOUTS: dict[str, Callable[[Path, bool], CaseTable]] = {
    "isic2018": read_isic2018,
    "ham10000": read_ham10000,
    "derm7pt": read_derm7pt,
    "manifest": read_manifest,
}


def detect_layout(folder: str | Path) -> str:
    """The layout a folder has, by its label file; a manifest of one's own wins over a published layout.

    Raises DataError that says what was expected.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {EXPECTED}")
    if (folder / "manifest.csv").is_file():
        return "manifest"
    if (folder / "meta" / "meta.csv").is_file():
        return "derm7pt"
    if _ham10000_metadata(folder):
        return "ham10000"
    if any((folder / f"ISIC2018_Task3_{name}_Input").is_dir() for name in ISIC2018_SPLITS):
        return "isic2018"
    raise DataError(f"{folder}: no known layout; {EXPECTED}")


def read_cases(folder: str | Path, layout: str | None = None, strict: bool = False) -> CaseTable:
    """The cases of one data set. Raises DataError where the folder is not as its layout asks, and, where `strict`,
    on the first bad row; otherwise bad rows are left out and named in `problems`.
    """
    folder = Path(folder)
    if layout is not None and layout not in LAYOUTS:
        raise DataError(f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {EXPECTED}")
    return LAYOUTS[layout or detect_layout(folder)](folder.resolve(), strict)  # "." has no name to call a source by


def discover(root: str | Path, strict: bool = False) -> dict[str, CaseTable]:
    """The data sets among the subfolders of `root`, or `root` itself, by folder name; others are passed over.

    Raises DataError where there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set $SKINCLIP_DATA or give --data")
    found = {}
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        try:
            layout = detect_layout(folder)
        except DataError:
            continue
        found[folder.resolve().name] = read_cases(folder, layout, strict)
    if not found:
        raise DataError(f"{root}: neither it nor a subfolder is a data set; {EXPECTED}")
    return found
