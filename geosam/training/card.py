"""What a fine-tuned model is told by: its model card and its learning curve."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from geosam.training.measure import CLICKS, Marks, gain
from geosam.training.places import Place

SIZE, MARGIN = (900, 420), 60
CLICK, BOX, LOSS, GREY = (200, 60, 40), (40, 90, 190), (180, 180, 180), (90, 90, 90)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A finished run.

    Attributes:
        path: the weights.
        id: of the model that they make.
        base: id of the model they were made from.
        before: marks of the base on the polygons held out.
        after: marks of the new model on the same.
        steps: that were made.
        kept: the step whose weights served the polygons held out best; 0: those of the base.
        seconds: that they took, looks at the polygons held out included.
        looks: (step, mean IoU from a click, from a box) along the way.
        losses: one a step.
        places: where it was learned.
        encoder: whether the image encoder learned too.
    """

    path: Path
    id: str
    base: str
    before: Marks
    after: Marks
    steps: int
    kept: int
    seconds: float
    looks: tuple[tuple[int, float, float], ...]
    losses: tuple[float, ...]
    places: tuple[Place, ...]
    encoder: bool

    @property
    def rows(self) -> list[tuple[str, float, float, float, float, float]]:
        """Prompt, mean IoU before and after, mean gain and the ends of its 95 % interval."""
        marks = (("1 click", self.before.click, self.after.click),
                 ("box", self.before.box, self.after.box))  # fmt: skip
        return [(name, float(a.mean()), float(b.mean()), *gain(a, b)) for name, a, b in marks]


def write_card(result: Result, path: Path) -> None:
    """Write the model card, in Markdown."""
    learned, held = (
        sum(len(getattr(place, which)) for place in result.places)
        for which in ("learned", "held_out")
    )
    parts = "prompt encoder and mask decoder" + (", image encoder" if result.encoder else "")
    kept = (
        f"those after step {result.kept}" if result.kept else f"those of `{result.base}`: no gain"
    )
    lines = [
        f"# Model card: {result.path.stem}",
        "",
        f"`{result.id}`, fine-tuned from `{result.base}` by `geosam train`.",
        "",
        "| | |",
        "| --- | --- |",
        f"| Weights | `{result.path.name}` |",
        f"| Date | {datetime.datetime.now(datetime.UTC).date().isoformat()} |",
        f"| What learned | {parts} |",
        f"| Steps | {result.steps}, in {result.seconds / 60:.1f} minutes |",
        f"| Weights kept | {kept} |",
        f"| Polygons | {learned} learned from, {held} held out |",
        "",
        "## Data",
        "",
        "| raster | fingerprint | learned from | held out | left out |",
        "| --- | --- | --- | --- | --- |",
    ]
    for place in result.places:
        left = ", ".join(f"{n} {reason}" for reason, n in place.left_out.items() if n) or "none"
        lines.append(
            f"| {Path(place.raster).name} | {place.fingerprint} | {len(place.learned)} | "
            f"{len(place.held_out)} | {left} |"
        )
    lines += [
        "",
        "## Figures",
        "",
        "IoU of the final polygons with those held out, which lie on ground that was not learned",
        "from. They also chose the moment to stop, which flatters the new figures a little. For",
        f"1 click each object is clicked in {CLICKS} places, one at a time.",
        "",
        f"| prompt | polygons | {result.base} | {result.path.stem} | gain (95 % interval) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, before, after, mean, low, high in result.rows:
        lines.append(
            f"| {name} | {len(result.after.click)} | {before:.3f} | {after:.3f} | "
            f"{mean:+.3f} ({low:+.3f} to {high:+.3f}) |"
        )
    lines += [
        "",
        "Only objects and images like these were measured. What the base model could do elsewhere",
        "may have become worse.",
        "",
        "## Licence",
        "",
        f"These weights derive from `{result.base}` and from the data above: the licences of both",
        "apply. Fill in those of your raster and polygons before you pass the weights on.",
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def draw_curve(result: Result, path: Path) -> None:
    """Draw IoU on the polygons held out, and the loss, over the steps, as PNG."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    width, height = SIZE
    left, top, right, bottom = MARGIN, 40, width - MARGIN, height - 40
    steps = max(1, result.steps)
    ious = np.array([look[1:] for look in result.looks])  # (L, 2)
    low = np.floor(ious.min() * 20) / 20
    high = max(np.ceil(ious.max() * 20) / 20, low + 0.05)

    def place(step: float, share: float) -> tuple[float, float]:
        return left + (right - left) * step / steps, bottom - (bottom - top) * share

    for tick in np.linspace(low, high, 6):
        (x, y), end = place(0, (tick - low) / (high - low)), (right, 0)
        draw.line([(x, y), (end[0], y)], fill=(230, 230, 230))
        draw.text((8, y - 6), f"{tick:.3f}", fill=GREY)
    for step in np.linspace(0, steps, 6).astype(int):
        draw.text((place(step, 0)[0] - 8, bottom + 8), str(step), fill=GREY)
    draw.text((right - 30, bottom + 22), "steps", fill=GREY)
    losses = np.array(result.losses)
    if len(losses) > 1:
        window = max(1, len(losses) // 40)
        smooth = np.convolve(losses, np.ones(window) / window, "valid")
        unit = (smooth - smooth.min()) / max(np.ptp(smooth), 1e-9)
        line = [place(i + window, float(u)) for i, u in enumerate(unit)]
        if len(line) > 1:
            draw.line(line, fill=LOSS, width=1)
    for column, colour in ((0, CLICK), (1, BOX)):
        line = [place(look[0], (look[1 + column] - low) / (high - low)) for look in result.looks]
        if len(line) > 1:
            draw.line(line, fill=colour, width=2)
        for x, y in line:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
    keys = (("IoU of held-out polygons: 1 click", CLICK), ("box", BOX), ("loss, own scale", LOSS))
    x = float(left)
    for text, colour in keys:
        draw.rectangle([x, 14, x + 14, 22], fill=colour)
        draw.text((x + 20, 12), text, fill=GREY)
        x += 40 + draw.textlength(text)
    image.save(path, format="PNG")
