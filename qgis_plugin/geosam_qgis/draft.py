"""The object that is being outlined: its prompts, in the order they were given. Knows no Qt."""


class Draft:
    """Clicks and boxes of one object, in the coordinates of the canvas at the time, with its CRS.

    A prompt is a tuple: ("point", x, y, label), label 1 on the object and 0 beside it; or
    ("box", xmin, ymin, xmax, ymax). There is one box at most; a new one stands for the old one
    until it is taken back.
    """

    def __init__(self, crs=None):
        self.crs = crs  # of the coordinates, as the caller has it
        self._prompts = []

    def __len__(self):
        return len(self._prompts)

    def __iter__(self):
        return iter(self._prompts)

    @property
    def is_lone_click(self):
        """Whether it is one click on the object, which has several readings."""
        return (
            len(self._prompts) == 1 and self._prompts[0][0] == "point" and self._prompts[0][3] == 1
        )

    @property
    def says_where(self):
        """Whether anything says where the object is: a click beside it alone does not."""
        return any(kind == "box" or rest[2] == 1 for kind, *rest in self._prompts)

    @property
    def points(self):
        """The clicks: (x, y, label)."""
        return [prompt[1:] for prompt in self._prompts if prompt[0] == "point"]

    @property
    def box(self):
        """The box that counts, (xmin, ymin, xmax, ymax), or None."""
        boxes = [prompt[1:] for prompt in self._prompts if prompt[0] == "box"]
        return boxes[-1] if boxes else None

    def add_point(self, x, y, label):
        """Add a click: label 1 on the object, 0 beside it."""
        self._prompts.append(("point", x, y, label))

    def add_box(self, x0, y0, x1, y1):
        """Add a box by any two opposite corners."""
        self._prompts.append(("box", min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))

    def take_back(self):
        """Remove the last prompt; it, or None."""
        return self._prompts.pop() if self._prompts else None

    def clear(self):
        """Remove all prompts."""
        self._prompts.clear()

    def with_point(self, x, y, label):
        """What the draft would be with one more click."""
        other = Draft(self.crs)
        other._prompts = [*self._prompts, ("point", x, y, label)]
        return other

    def request(self, name="draft"):
        """The prompt as the engine takes it, or None if there is nothing to ask for."""
        if not self.says_where:
            return None
        asked = {"id": name}
        if self.points:
            asked["points"] = [[x, y] for x, y, _ in self.points]
            asked["labels"] = [label for *_, label in self.points]
        if self.box:
            asked["box"] = list(self.box)
        return asked
