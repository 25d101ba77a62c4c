"""An Assessment as a PDF to print or to file: one A4 page, a second where there is much to say.

- Text is text: it can be selected, searched and read aloud. Pictures have a description.
- A finding has the same number and colour in the photo, the list and the rationale, as on the page.
- The same Assessment gives the same bytes. No date, name of a file, user or machine goes in: what is in the file is
  what is to be read on the paper.
- A model that abstains gives no figures at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import matplotlib
import numpy as np
from fpdf import FPDF

from skinclip import RESEARCH_USE_ONLY
from skinclip.core.assessment import Assessment, Context
from skinclip.core.formatting import percent, whole_percent
from skinclip.core.vocabulary import CRITERION_BY_CODE, DIAGNOSIS_BY_CODE
from skinclip.imaging.overlay import DRAWN_SIDE, colour_of, ink_of, region_overlay
from skinclip.imaging.photo import encode_jpeg, fit
from skinclip.reporting import phrasing

# All lengths are millimetres, sizes of letters points.
WIDTH, MARGIN, GAP = 210.0, 14.0, 6.0
INNER = WIDTH - 2 * MARGIN
HALF = (INNER - GAP) / 2
BANNER = 8.0
PICTURE_HEIGHT = 66.0
BESIDE_HEIGHT = 40.0
PRINTED_SIDE = 1100  # px: 300 to the inch at the width of a picture
TEXT, SMALL = 9.0, 7.5
RADIUS = 1.9  # of a finding's number

INK, SUBDUED, TRACK, LINE = (24, 33, 40), (76, 93, 105), (228, 234, 238), (200, 209, 215)
BANNER_INK, MALIGNANT, BENIGN = (16, 24, 31), (134, 32, 0), (63, 140, 192)
# Background and bar of a box.
REFER, KEEP = ((253, 241, 234), (134, 32, 0)), ((238, 242, 244), (76, 93, 105))
CAUTION, ALERT = ((255, 248, 227), (122, 86, 0)), ((253, 238, 238), (161, 29, 29))

# matplotlib brings them; they hold Latin, Greek and Cyrillic letters among others.
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
NO_DATE = datetime(1970, 1, 1, tzinfo=UTC)  # the library asks for one

Colour = tuple[int, int, int]


def assessment_pdf(assessment: Assessment, pixels: np.ndarray, beside: np.ndarray | None = None) -> bytes:
    """The file's bytes.

    Args:
        pixels: uint8 [H, W, 3], the assessed photo or a scaled copy of it.
        beside: likewise, the other photo of the lesion.
    """
    sheet = _Sheet(assessment)
    sheet.add_page()
    _title(sheet, assessment)
    _cautions(sheet, assessment)
    _clinician(sheet, assessment)
    _pictures(sheet, assessment, pixels)
    if beside is not None:
        _beside(sheet, assessment, beside)
    if not assessment.abstained:
        _answer(sheet, assessment)
        _findings(sheet, assessment)
        _rationale(sheet, assessment)
        _criteria(sheet, assessment)
    return bytes(sheet.output())


# --- the sheet: a page, and text that flows on it -----------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A word, or the number of finding `chip` (from 0); `glued` to the piece before it where no space is between."""

    text: str
    bold: bool = False
    chip: int | None = None
    glued: bool = False


class _Sheet(FPDF):
    """A4 with the banner on top of each page and what was assessed by what at its foot."""

    def __init__(self, assessment: Assessment) -> None:
        super().__init__(format="A4")
        model = assessment.model
        photos = [
            f"photo {photo.sha256[:12]}, {photo.width} × {photo.height} pixels"
            for photo in assessment.photos or (assessment.photo,)
        ]
        made_by = f"SkinCLIP-VL, model {model.preset} {model.version}, weights {model.weights_sha256[:12]}"
        self.foot = " · ".join([made_by, *photos])
        self.set_margins(MARGIN, BANNER + 6, MARGIN)
        self.set_auto_page_break(True, 14)
        self.add_font("DejaVu", "", FONTS / "DejaVuSans.ttf")
        self.add_font("DejaVu", "B", FONTS / "DejaVuSans-Bold.ttf")
        self.set_title("SkinCLIP-VL assessment")
        self.set_subject(RESEARCH_USE_ONLY)
        self.set_lang("en-GB")
        self.set_creation_date(NO_DATE)

    def header(self) -> None:
        self.set_fill_color(*BANNER_INK)
        self.rect(0, 0, WIDTH, BANNER, "F")
        self.letters(TEXT, bold=True, colour=(255, 255, 255))
        self.set_xy(0, 0)
        self.cell(WIDTH, BANNER, RESEARCH_USE_ONLY, align="C")
        self.set_xy(MARGIN, BANNER + 6)

    def footer(self) -> None:
        self.line_at(self.h - 11.5)
        self.put(MARGIN, self.h - 7.5, self.foot, 6.5, colour=SUBDUED)
        wider = self.length("{nb}", 6.5) - self.length("0", 6.5)  # the mark is wider than the number that replaces it
        self.set_xy(WIDTH - MARGIN - 30 + wider + self.c_margin, self.h - 9.6)
        self.letters(6.5, colour=SUBDUED)
        self.cell(30, 3, f"page {self.page_no()} of {{nb}}", align="R")

    def letters(self, size: float, bold: bool = False, colour: Colour = INK) -> None:
        self.set_font("DejaVu", "B" if bold else "", size)
        self.set_text_color(*colour)

    def known(self, text: str) -> str:
        """The text with a mark for each character that the letters lack or that cannot be printed."""
        glyphs = self.fonts["dejavu"].cmap  # type: ignore[union-attr]
        spaced = (" " if c.isspace() else c for c in text)
        return "".join(c if ord(c) in glyphs and c.isprintable() else UNKNOWN for c in spaced)

    def put(self, x: float, y: float, text: str, size: float, bold: bool = False, colour: Colour = INK) -> None:
        """One line from `x`, its baseline at `y`."""
        self.letters(size, bold, colour)
        self.text(x, y, self.known(text))

    def put_right(self, x: float, y: float, text: str, size: float, bold: bool = False, colour: Colour = INK) -> None:
        """One line that ends at `x`."""
        self.put(x - self.length(text, size, bold), y, text, size, bold, colour)

    def length(self, text: str, size: float, bold: bool = False) -> float:
        self.letters(size, bold)
        return float(self.get_string_width(self.known(text)))

    def heading(self, x: float, text: str) -> None:
        """A small heading at the present height; what follows begins below it."""
        self.put(x, self.y + 3, text, SMALL, bold=True, colour=SUBDUED)
        self.set_y(self.y + 5.5)

    def line_at(self, y: float) -> None:
        self.set_draw_color(*LINE)
        self.set_line_width(0.2)
        self.line(MARGIN, y, WIDTH - MARGIN, y)

    def need(self, height: float) -> None:
        """A new page where less than `height` is left of this one."""
        if self.will_page_break(height):
            self.add_page()

    def box(self, x: float, y: float, width: float, height: float, colours: tuple[Colour, Colour]) -> None:
        self.set_fill_color(*colours[0])
        self.rect(x, y, width, height, "F")
        self.set_fill_color(*colours[1])
        self.rect(x, y, 1.2, height, "F")

    def chip(self, x: float, y: float, index: int) -> None:
        """The number of finding `index` (from 0) on a disc that begins at `x`, for a baseline at `y`."""
        self.set_fill_color(*colour_of(index))
        self.set_draw_color(0, 0, 0)
        self.set_line_width(0.2)
        middle = y - 1.15
        self.circle(x + RADIUS, middle, RADIUS, "DF")
        text, size = str(index + 1), 7.0 if index < 9 else 6.0
        at = x + RADIUS - self.length(text, size, bold=True) / 2
        self.put(at, middle + 0.125 * size, text, size, bold=True, colour=ink_of(index))

    def flow(self, x: float, width: float, pieces: Sequence[_Piece], size: float = TEXT, colour: Colour = INK) -> None:
        """Lines of text from the present height on, on a new page where this one is full."""
        height = self.line_height(size)
        for line in self.lines(width, pieces, size):
            self.need(height)
            self._put_line(x, self.y + 0.72 * height, line, size, colour)
            self.set_y(self.y + height)

    @staticmethod
    def line_height(size: float) -> float:
        return 0.5 * size

    def lines(self, width: float, pieces: Sequence[_Piece], size: float) -> list[list[_Piece]]:
        """The pieces laid out on lines no wider than `width`. A word wider than that is cut.

        What is glued to a word stays with it, and a number stays with the word after it.
        """
        space = self.length(" ", size)
        units: list[list[_Piece]] = []
        for piece in self._cut(pieces, width, size):
            if units and (piece.glued or units[-1][-1].chip is not None):
                units[-1].append(piece)
            else:
                units.append([piece])
        lines: list[list[_Piece]] = []
        end = width
        for unit in units:
            gaps = sum(not piece.glued for piece in unit[1:]) * space
            extent = gaps + sum(self._extent(piece, size) for piece in unit)
            if not lines or end + space + extent > width:
                lines.append([])
                end = -space
            lines[-1] += unit
            end += space + extent
        return lines

    def _extent(self, piece: _Piece, size: float) -> float:
        return 2 * RADIUS if piece.chip is not None else self.length(piece.text, size, piece.bold)

    def _cut(self, pieces: Sequence[_Piece], width: float, size: float) -> list[_Piece]:
        cut = []
        for piece in pieces:
            rest = piece
            while rest.chip is None and self._extent(rest, size) > width:
                most = 1
                while self.length(rest.text[: most + 1], size, rest.bold) < width:
                    most += 1
                cut.append(replace(rest, text=rest.text[:most], glued=False))
                rest = replace(rest, text=rest.text[most:], glued=False)
            cut.append(rest)
        return cut

    def _put_line(self, x: float, y: float, line: Sequence[_Piece], size: float, colour: Colour) -> None:
        """Words of one kind go out together with the spaces between them, so that they are copied as they read."""
        space = self.length(" ", size)
        runs: list[tuple[float, str, bool]] = []
        after_chip = True
        for i, piece in enumerate(line):
            apart = i > 0 and not piece.glued
            x += space if apart else 0.0
            if piece.chip is not None:
                self.chip(x, y, piece.chip)
            elif after_chip or runs[-1][2] != piece.bold:
                runs.append((x, piece.text, piece.bold))
            else:
                start, text, bold = runs[-1]
                runs[-1] = (start, text + (" " if apart else "") + piece.text, bold)
            after_chip = piece.chip is not None
            x += self._extent(piece, size)
        for start, text, bold in runs:
            self.put(start, y, text, size, bold, colour)


_WORD = r"(?:\S|\N{NO-BREAK SPACE})+"


def _words(text: str) -> list[_Piece]:
    """The words of a sentence, bold between `**`."""
    pieces = []
    for i, part in enumerate(text.split("**")):
        glued = i > 0 and not part[:1].isspace() and not text.split("**")[i - 1][-1:].isspace()
        pieces += [_Piece(word, i % 2 == 1, glued=glued and k == 0) for k, word in enumerate(re.findall(_WORD, part))]
    return pieces


# --- the parts of the page ----------------------------------------------------------------------------------------


def _title(sheet: _Sheet, assessment: Assessment) -> None:
    y = sheet.y
    sheet.put(MARGIN, y + 5, "Assessment of a skin lesion", 15, bold=True)
    sheet.put_right(WIDTH - MARGIN, y + 5, "SkinCLIP-VL", TEXT, bold=True, colour=SUBDUED)
    names = [photo.sha256[:8] for photo in assessment.photos or (assessment.photo,)]
    named = f"photo{'s' if len(names) > 1 else ''} {', '.join(names)}"
    sheet.put_right(WIDTH - MARGIN, y + 10, named, TEXT, colour=SUBDUED)
    sheet.set_y(y + 6.8)
    sheet.flow(
        MARGIN, INNER - 50, _words(f"{_case(assessment)}Patient: {_patient(assessment.context)}"), colour=SUBDUED
    )
    if assessment.photos or phrasing.kind_of(assessment.photo):
        words = phrasing.photos_named(assessment)
        sheet.flow(MARGIN, INNER, _words(f"{words[0].upper()}{words[1:]}"), colour=SUBDUED)
    sheet.set_y(sheet.y + 2.8)


def _case(assessment: Assessment) -> str:
    added = assessment.clinician
    parts = [] if added is None else [added.case_id and f"Case {added.case_id}", added.date]
    return "".join(f"{part} · " for part in parts if part)


def _clinician(sheet: _Sheet, assessment: Assessment) -> None:
    """The clinician's own diagnosis and corrections, marked as theirs; the figures below stay the model's."""
    lines = phrasing.clinicians_part(assessment)
    if lines:
        _note(sheet, "The clinician's version", lines, KEEP)


def _patient(context: Context) -> str:
    age = None if context.age is None else f"{context.age:g} years"
    return ", ".join(filter(None, (age, context.sex, context.site))) or "age, sex and site not given"


def _cautions(sheet: _Sheet, assessment: Assessment) -> None:
    """First of all, and plainly: that there is no answer, or what to be careful about."""
    lines = phrasing.cautions(assessment)
    if assessment.abstained:
        _note(sheet, phrasing.ABSTAINS, [*lines, f"{phrasing.INSTEAD_OF_AN_ANSWER} this model."], ALERT)
    elif lines:
        _note(sheet, "Please note", lines, CAUTION)


def _note(sheet: _Sheet, heading: str, lines: Sequence[str], colours: tuple[Colour, Colour]) -> None:
    paragraphs = [[_Piece(word) for word in line.split()] for line in lines]
    rows = sum(len(sheet.lines(INNER - 8, p, TEXT)) for p in paragraphs)
    height = 9 + rows * sheet.line_height(TEXT) + (len(lines) - 1)
    top = sheet.y
    sheet.box(MARGIN, top, INNER, height, colours)
    sheet.put(MARGIN + 4, top + 5, heading, 10.5, bold=True, colour=colours[1])
    sheet.set_y(top + 7)
    for paragraph in paragraphs:
        sheet.flow(MARGIN + 4, INNER - 8, paragraph)
        sheet.set_y(sheet.y + 1)
    sheet.set_y(top + height + 4)


def _pictures(sheet: _Sheet, assessment: Assessment, pixels: np.ndarray) -> None:
    """The photo, and beside it the same with the numbered regions."""
    pixels = fit(pixels, PRINTED_SIDE, DRAWN_SIDE)
    overlay = region_overlay(pixels, assessment, "none" if assessment.abstained else None)
    scale = min(HALF / pixels.shape[1], PICTURE_HEIGHT / pixels.shape[0])
    width, height = scale * pixels.shape[1], scale * pixels.shape[0]
    top = sheet.y
    named = ("Photo", _regions_caption(assessment))
    for x, picture, name in zip((MARGIN, MARGIN + HALF + GAP), (pixels, overlay), named, strict=True):
        sheet.image(encode_jpeg(picture, 90), x=x, y=top, w=width, h=height, alt_text=name)
        sheet.put(x, top + height + 4, name, SMALL, colour=SUBDUED)
    sheet.set_y(top + height + 8)


def _beside(sheet: _Sheet, assessment: Assessment, pixels: np.ndarray) -> None:
    """The other photo of the lesion, smaller: nothing is drawn in it."""
    pixels = fit(pixels, PRINTED_SIDE)
    scale = min(HALF / pixels.shape[1], BESIDE_HEIGHT / pixels.shape[0])
    width, height = scale * pixels.shape[1], scale * pixels.shape[0]
    sheet.need(height + 8)
    top, name = sheet.y, phrasing.beside(assessment)
    sheet.image(encode_jpeg(pixels, 90), x=MARGIN, y=top, w=width, h=height, alt_text=name)
    sheet.put(MARGIN, top + height + 4, name, SMALL, colour=SUBDUED)
    sheet.set_y(top + height + 8)


def _regions_caption(assessment: Assessment) -> str:
    if not assessment.lesion.polygons:
        return "No lesion was found in this photo"
    if assessment.abstained or not assessment.findings:
        return "Dashed: the lesion as the model outlines it"
    return "Findings, numbered as below; on the dashed line: the lesion itself"


def _answer(sheet: _Sheet, assessment: Assessment) -> None:
    """The differential, and the referral beside it."""
    top, wide = sheet.y, 110.0
    _differential(sheet, assessment, wide)
    bottom = sheet.y
    sheet.set_y(top)
    _referral(sheet, assessment, MARGIN + wide + GAP, INNER - wide - GAP)
    sheet.set_y(max(bottom, sheet.y) + 3.5)


def _differential(sheet: _Sheet, assessment: Assessment, width: float) -> None:
    sheet.heading(MARGIN, "DIFFERENTIAL DIAGNOSIS")
    bar, room = MARGIN + 47, width - 47 - 14
    for d in assessment.diagnosis:
        malignant, y = DIAGNOSIS_BY_CODE[d.code].malignant, sheet.y + 3.4
        in_set = d.code in assessment.prediction_set.codes
        sheet.put(MARGIN, y, d.name, TEXT, bold=in_set)
        if malignant:
            sheet.put(bar - 4.2, y, "▲", SMALL, colour=MALIGNANT)
        sheet.set_fill_color(*TRACK)
        sheet.rect(bar, y - 2.6, room, 3, "F")
        sheet.set_fill_color(*(MALIGNANT if malignant else BENIGN))
        sheet.rect(bar, y - 2.6, room * d.probability, 3, "F")
        sheet.put_right(MARGIN + width, y, percent(d.probability), TEXT, bold=in_set)
        sheet.set_y(sheet.y + 4.9)
    sheet.set_y(sheet.y + 1)
    sheet.flow(MARGIN, width, _words(phrasing.prediction_set(assessment)), 8.5)
    key = "▲ malignant · names in bold cannot be ruled out · probabilities are at the prevalence of HAM10000"
    sheet.set_y(sheet.y + 0.7)
    sheet.flow(MARGIN, width, _words(key), 6.5, SUBDUED)


def _referral(sheet: _Sheet, assessment: Assessment, x: float, width: float) -> None:
    m, top, inner = assessment.malignancy, sheet.y, width - 8
    colours = REFER if m.refer else KEEP
    advice = phrasing.advice(assessment)
    sentences = (advice.basis, advice.reconciliation, *advice.leaves_open)
    basis, malignant = _words(" ".join(filter(None, sentences))), _words(phrasing.malignant_here(assessment))
    rows = [len(sheet.lines(inner, p, size)) * sheet.line_height(size) for p, size in ((basis, 8.5), (malignant, 6.5))]
    sheet.box(x, top, width, 26 + sum(rows), colours)
    sheet.set_y(top + 2)
    sheet.heading(x + 4, f"REFERRAL, ON {'THESE PHOTOS' if assessment.photos else 'THIS PHOTO'} ALONE")
    sheet.put(x + 4, sheet.y + 5.5, f"{'▲' if m.refer else '●'} {advice.verdict}", 14, True, colours[1])
    _gauge(sheet, assessment, x + 4, sheet.y + 11.7, inner)
    sheet.set_y(sheet.y + 14.5)
    sheet.flow(x + 4, inner, basis, 8.5)
    sheet.set_y(sheet.y + 1)
    sheet.flow(x + 4, inner, malignant, 6.5, SUBDUED)
    sheet.set_y(top + 26 + sum(rows))


def _gauge(sheet: _Sheet, assessment: Assessment, x: float, y: float, width: float) -> None:
    """Probability of malignancy (filled) and referral threshold (a tick) on one line from 0 to 1."""
    m = assessment.malignancy
    sheet.set_fill_color(255, 255, 255)
    sheet.rect(x, y - 2.4, width, 2.4, "F")
    sheet.set_fill_color(*(REFER if m.refer else KEEP)[1])
    sheet.rect(x, y - 2.4, width * m.probability, 2.4, "F")
    sheet.set_fill_color(*INK)
    sheet.rect(x + width * m.threshold - 0.35, y - 3.4, 0.7, 4.4, "F")


def _findings(sheet: _Sheet, assessment: Assessment) -> None:
    """Number, words and score of each finding, in two columns."""
    rows = -(-len(assessment.findings) // 2)
    sheet.need(12 + 5.4 * max(1, rows))
    sheet.heading(MARGIN, "FINDINGS")
    if not assessment.findings:
        sheet.flow(MARGIN, INNER, _words("No finding reaches its threshold."))
    top = sheet.y
    for i, finding in enumerate(assessment.findings):
        x, y = MARGIN + (i // rows) * (HALF + GAP), top + 5.4 * (i % rows) + 3.6
        sheet.chip(x, y, i)
        sheet.put(x + 6, y, phrasing.phrase(finding), TEXT)
        sheet.put_right(x + HALF, y, f"score {finding.score:.2f}", SMALL, colour=SUBDUED)
    sheet.set_y(max(sheet.y, top + 5.4 * rows))
    if assessment.findings:
        sheet.flow(MARGIN, INNER, _words("Scores run from 0 to 1; they are no probabilities of disease."), 6.5, SUBDUED)
    if abcd := phrasing.abcd(assessment):
        sheet.flow(MARGIN, INNER, _words("; ".join(f"**{letter}** {name}: {words}" for letter, name, words in abcd)))
    sheet.set_y(sheet.y + 3)


def _rationale(sheet: _Sheet, assessment: Assessment) -> None:
    if not assessment.rationale:
        return
    sheet.need(16)
    sheet.heading(MARGIN, "RATIONALE")
    sheet.flow(MARGIN, INNER, _cited(assessment.rationale, assessment), 9.5)
    if depends := phrasing.depends(assessment):
        sheet.set_y(sheet.y + 1)
        sheet.flow(MARGIN, INNER, _cited(depends, assessment), 8, SUBDUED)
    sheet.set_y(sheet.y + 3)


def _cited(text: str, assessment: Assessment) -> list[_Piece]:
    """A text with numbers in place of its references; a reference to no finding stays as it is."""
    index = {finding.ref: i for i, finding in enumerate(assessment.findings)}
    pieces = []
    for word in text.split():
        parts = [p for p in re.split(r"(\[r[0-9]+\])", word) if p]
        pieces += [_Piece(part, chip=index.get(part[1:-1]), glued=k > 0) for k, part in enumerate(parts)]
    return pieces


def _criteria(sheet: _Sheet, assessment: Assessment) -> None:
    """The probability of every state of the criteria, cited or not, the most probable in bold."""
    if not assessment.criteria:
        return
    rows = -(-len(assessment.criteria) // 2)
    sheet.need(6 + 4.4 * rows)
    sheet.heading(MARGIN, "DERMOSCOPIC CRITERIA, PROBABILITY OF EACH STATE")
    top = sheet.y
    for i, (code, states) in enumerate(assessment.criteria.items()):
        x = MARGIN + (i // rows) * (HALF + GAP)
        sheet.set_y(top + 4.4 * (i % rows))
        name = CRITERION_BY_CODE[code].name if code in CRITERION_BY_CODE else code
        sheet.put(x, sheet.y + 2.7, name, SMALL, colour=SUBDUED)
        likeliest = max(states, key=lambda state: states[state])
        phrases = []
        for state, p in states.items():
            words = f"{state} {whole_percent(p)}"
            phrases.append(f"**{words}**" if state == likeliest else words)
        sheet.flow(x + 32, HALF - 32, _words(" · ".join(phrases)), 6.8)
    sheet.set_y(top + 4.4 * rows + 2)
