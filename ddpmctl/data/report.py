"""Report of a dataset load: unused files and conversions."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ddpmctl.labels import is_displayable

MAX_NAMED = 5
"""Files that a short summary names; the others are counted."""


@dataclass(slots=True)
class LoadReport:
    """Filled while a dataset is loaded. Loading both parts of a dataset into one report repeats nothing."""

    unused: dict[str, str] = field(default_factory=dict)
    """Why a file or a folder was not used, by its path inside the dataset; folders end with ``/``."""
    remarks: list[str] = field(default_factory=list)
    """Sentences about the whole dataset."""
    pictures: dict[str, dict[str, None]] = field(default_factory=dict)
    """Paths of images that were used, by a remark that follows "are"."""

    def skip(self, path: str, reason: str) -> None:
        """Record that a file or a folder is not used."""
        self.unused.setdefault(escaped(path), escaped(reason))

    def remark(self, sentence: str) -> None:
        """Record a sentence about the whole dataset."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    def note_image(self, path: str, what: str) -> None:
        """Record something about an image that is used."""
        self.pictures.setdefault(what, {})[escaped(path)] = None

    def unused_lines(self) -> list[str]:
        """Everything that is not used, one line each, folders first."""
        ordered = sorted(self.unused.items(), key=lambda entry: not entry[0].endswith("/"))
        return [f"{path}: {reason}" for path, reason in ordered]

    def notes(self) -> list[str]:
        """Conversions of the images that are used, in sentences."""
        found = []
        for what, paths in self.pictures.items():
            subject = counted(len(paths), "image is", "images are")
            found.append(f"{subject} {what}: {_first(list(paths), ', ')}")
        return [*self.remarks, *found]

    def summary(self, command: str) -> Iterator[str]:
        """The report in a few sentences; ``command`` lists everything that is not used."""
        lines = self.unused_lines()
        if lines:
            subject = counted(len(lines), "file or folder is", "files and folders are")
            where = f" (all of them: {command})" if len(lines) > MAX_NAMED else ""
            yield f"{subject} not used: {_first(lines, '; ')}{where}"
        yield from self.notes()


def counted(number: int, one: str, several: str) -> str:
    """A number with its noun, in the singular or the plural."""
    return f"{number:,} {one if number == 1 else several}"


def byte_count(number: int) -> str:
    """A number of bytes in decimal units, such as ``562 MB`` or ``1.3 GB``."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{max(1, round(number / 1e6))} MB"


def escaped(text: str) -> str:
    """Text from the file system with an escape for each character that cannot be displayed."""
    return "".join(
        char if is_displayable(char) else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def _first(lines: list[str], separator: str) -> str:
    more = f"{separator}and {len(lines) - MAX_NAMED:,} more" if len(lines) > MAX_NAMED else ""
    return separator.join(lines[:MAX_NAMED]) + more
