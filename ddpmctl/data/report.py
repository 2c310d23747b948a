"""What a data set did not use, and what it did to the pictures that it used."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from ddpmctl.labels import is_displayable

MOST_NAMED = 5
"""Files that a short summary names; of the others it gives the number."""


@dataclass(slots=True)
class LoadReport:
    """Filled while a data set is loaded. Loading both parts of a set into one report says nothing twice.

    Attributes:
        unused: why a file or a folder was not used, by its path inside the set; folders end with ``/``.
        remarks: sentences about the whole set.
        pictures: paths of pictures that were used, by what is remarkable about them, to be read after "are".
    """

    unused: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    pictures: dict[str, dict[str, None]] = field(default_factory=dict)

    def leave_out(self, path: str, reason: str) -> None:
        """Record that a file or a folder is not used."""
        self.unused.setdefault(escaped(path), escaped(reason))

    def remark(self, sentence: str) -> None:
        """Record something about the whole set."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)

    def point_out(self, path: str, what: str) -> None:
        """Record something about a picture that is used."""
        self.pictures.setdefault(what, {})[escaped(path)] = None

    def unused_lines(self) -> list[str]:
        """Everything that is not used, one line each, folders first."""
        ordered = sorted(self.unused.items(), key=lambda entry: not entry[0].endswith("/"))
        return [f"{path}: {reason}" for path, reason in ordered]

    def notes(self) -> list[str]:
        """What was done to the pictures that are used, a sentence each."""
        found = []
        for what, paths in self.pictures.items():
            subject = counted(len(paths), "picture is", "pictures are")
            found.append(f"{subject} {what}: {_first(list(paths), ', ')}")
        return [*self.remarks, *found]

    def summary(self, command: str) -> Iterator[str]:
        """The report in a few sentences.

        Args:
            command: lists everything that is not used.
        """
        lines = self.unused_lines()
        if lines:
            subject = counted(len(lines), "file or folder is", "files and folders are")
            where = f" (all of them: {command})" if len(lines) > MOST_NAMED else ""
            yield f"{subject} not used: {_first(lines, '; ')}{where}"
        yield from self.notes()


def counted(number: int, one: str, several: str) -> str:
    """A number and what is counted, in the singular or the plural."""
    return f"{number:,} {one if number == 1 else several}"


def escaped(text: str) -> str:
    """Text from the file system with an escape for each character that cannot be displayed."""
    return "".join(
        char if is_displayable(char) else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


def _first(lines: list[str], separator: str) -> str:
    more = f"{separator}and {len(lines) - MOST_NAMED:,} more" if len(lines) > MOST_NAMED else ""
    return separator.join(lines[:MOST_NAMED]) + more
