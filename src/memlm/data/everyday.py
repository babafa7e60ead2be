"""Everyday text, made up: what people type that a corpus of prose lacks, for training on.

Words, names, dates, amounts, addresses, code, tables, other alphabets, emoji, blanks. What is evaluated on is not made
here (`data.texts`).
"""

import json
import random
import string
from collections.abc import Callable, Iterator, Sequence

from memlm.data.documents import Document
from memlm.data.texts import module_source

_LONGEST = 800
"""Characters of a document: more than most chunks hold."""
_PLAIN_FRACTION = 0.6
"""Share of documents that are one piece by itself; others are several, below or beside each other."""
TRAINING_MODULES = (
    *("argparse", "ast", "configparser", "datetime", "doctest", "ftplib", "inspect", "optparse", "pathlib", "pdb"),
    *("pickle", "platform", "smtplib", "socket", "statistics", "subprocess", "tarfile", "threading", "uuid"),
)
"""Of the Python that runs; others than evaluation reads."""
_ALPHABETS = {
    "latin": "aàáâãäåāăąbcçćčdďđeèéêëēęěfgğhiìíîïīıjklłľmnñńňoòóôõöøőœpqrřsśşšßtťuùúûüūůűvwxyýÿzźżžæðþ",
    "greek": "αβγδεζηθικλμνξοπρςστυφχψωάέήίόύώ",
    "cyrillic": "абвгдежзийклмнопрстуфхцчшщъыьэюяёєіїґ",
    "hebrew": "אבגדהוזחטיכלמנסעפצקרשתםןףץך",
    "arabic": "ابتثجحخدذرزسشصضطظعغفقكلمنهويءآأؤإئةى",
    "devanagari": "अआइईउऊएऐओऔकखगघचछजझटठडढणतथदधनपफबभमयरलवशषसहािीुूेैोौं्",
    "thai": "กขคฆงจฉชซฌญฎฏฐฑฒณดตถทธนบปผฝพฟภมยรลวศษสหอะาิีึืุูเแโใไ่้",
    "kana": "".join(map(chr, [*range(0x3041, 0x3097), *range(0x30A1, 0x30FB)])),
    "hangul": "".join(map(chr, range(0xAC00, 0xD7A4))),
    "han": "".join(map(chr, range(0x4E00, 0x9FA6))),
    "georgian and armenian": "".join(map(chr, [*range(0x10D0, 0x10F1), *range(0x561, 0x587)])),
}
_EMOJI = "".join(map(chr, [*range(0x1F300, 0x1F650), *range(0x1F680, 0x1F6C6), *range(0x1F900, 0x1FA00)]))
_SYMBOLS = "–—…“”‘’«»€£¥§©®™°±×÷≤≥≠≈∞√∑∫→←↑↓•·†‡¶№✓✗★☆♥♪│─┌┐└┘█"
_ENDINGS = ("com", "org", "net", "de", "fr", "co.uk", "io", "edu", "gov", "info", "jp")
_MONTHS = ["January", "February", "March", "April", "May", "June"]
_MONTHS += ["July", "August", "September", "October", "November", "December"]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class _Writer:
    """Makes up pieces of text, each of a kind."""

    def __init__(self, words: Sequence[str], rng: random.Random) -> None:
        self.words, self.rng = words, rng
        self.code = [line for module in TRAINING_MODULES for line in module_source(module).splitlines()]
        self.kinds: tuple[Callable[[], str], ...] = (
            *(self.phrase, self.name, self.date, self.amount, self.url, self.email, self.lines_of_code, self.table),
            *(self.letter, self.digits, self.identifier, self.foreign, self.foreign, self.emoji, self.blanks),
            *(self.record, self.characters),
        )

    def document(self) -> str:
        kind = self.rng.choice(self.kinds)
        if self.rng.random() < _PLAIN_FRACTION:
            return kind()
        between = self.rng.choice(("\n", " ", ", ", "\n\n", "\t", "; "))
        others = self.rng.choice((kind, lambda: self.rng.choice(self.kinds)()))
        length, pieces = self.rng.randrange(_LONGEST), [kind()]
        while sum(map(len, pieces)) < length:
            pieces.append(others())
        return between.join(pieces)

    # --- words -----------------------------------------------------------------------------------------------------

    def word(self) -> str:
        word = self.rng.choice(self.words)
        return self.rng.choice((str, str, str.lower, str.capitalize, str.upper))(word)

    def phrase(self) -> str:
        words = " ".join(self.word() for _ in range(self.some(12)))
        return words + self.rng.choice(("", "", ".", "!", "?", "...", ":"))

    def name(self) -> str:
        parts = [self.made_up_word().capitalize() for _ in range(self.rng.randint(1, 3))]
        if self.rng.random() < 0.2:
            parts.insert(1, f"{self.rng.choice(string.ascii_uppercase)}.")
        if self.rng.random() < 0.2:
            parts.insert(0, self.rng.choice(("Mr.", "Mrs.", "Ms.", "Dr.", "Prof.", "Sir", "St.")))
        return self.rng.choice((" ", " ", " ", "-")).join(parts)

    def made_up_word(self) -> str:
        onsets = ("b br c ch d f g gr h j k kl l m n p r s sch " + "sh st t th tr v w x y z  ñ ç").split(" ")
        vowels = ("a", "e", "i", "o", "u", "ai", "ee", "ei", "ie", "oo", "ou", "y", "ä", "é", "ö", "ü", "í", "ó")
        ends = ("", "", "n", "r", "s", "l", "m", "t", "ck", "ng", "nd", "rt", "ß", "x")
        syllables = (map(self.rng.choice, (onsets, vowels, ends)) for _ in range(self.rng.randint(1, 4)))
        return "".join(part for syllable in syllables for part in syllable)

    # --- numbers ---------------------------------------------------------------------------------------------------

    def date(self) -> str:
        year, month, day = self.rng.randint(1500, 2100), self.rng.randint(1, 12), self.rng.randint(1, 28)
        name, hour, minute = _MONTHS[month - 1], self.rng.randint(0, 23), self.rng.randint(0, 59)
        return self.rng.choice(
            (
                f"{year}-{month:02}-{day:02}",
                f"{day}.{month}.{year}",
                f"{month}/{day}/{year % 100:02}",
                f"{name} {day}, {year}",
                f"{day} {name[:3]} {year}",
                f"{self.rng.choice(_DAYS)}, {name} {day}",
                self.rng.choice(_DAYS),
                f"{hour:02}:{minute:02}",
                f"{hour % 12 + 1}:{minute:02} {self.rng.choice(('am', 'pm'))}",
                f"{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{day:02}Z",
                str(year),
            )
        )

    def amount(self) -> str:
        number = self.rng.randrange(10 ** self.rng.randint(1, 9))
        decimals = self.rng.choice((str(number), f"{number:,}", f"{number / 100:,.2f}", f"{number / 1000:g}"))
        before = self.rng.choice(("", "", "$", "€", "£", "-", "+", "USD ", "#", "≈ "))
        after = self.rng.choice(("", "", "%", " kg", " km", " €", " million", "°C", "ms", " GB", "x"))
        return f"{before}{decimals}{after}"

    def digits(self) -> str:
        return "".join(self.rng.choices(string.digits, k=self.some(120)))

    def identifier(self) -> str:
        characters = self.rng.choice(("0123456789abcdef", string.ascii_letters + string.digits, string.digits + "-."))
        groups = ("".join(self.rng.choices(characters, k=self.some(12))) for _ in range(self.some(6)))
        return self.rng.choice(("", "-", ":", ".", "_")).join(groups)

    # --- addresses, code, tables -----------------------------------------------------------------------------------

    def host(self) -> str:
        parts = [*(self.made_up_word() for _ in range(self.rng.randint(1, 2))), self.rng.choice(_ENDINGS)]
        return ".".join(parts).encode("ascii", "ignore").decode()

    def url(self) -> str:
        path = "/".join(self.rng.choice((self.word, self.identifier, self.made_up_word))() for _ in range(self.some(4)))
        query = f"?{self.word()}={self.identifier()}" if self.rng.random() < 0.3 else ""
        return f"{self.rng.choice(('https://', 'http://', 'https://www.', 'www.', ''))}{self.host()}/{path}{query}"

    def email(self) -> str:
        names = self.rng.choice((".", "_", "", "-")).join(self.made_up_word() for _ in range(self.rng.randint(1, 2)))
        number = self.rng.choice(("", "", str(self.rng.randrange(2000))))
        return f"{names}{number}@{self.host()}".encode("ascii", "ignore").decode()

    def lines_of_code(self) -> str:
        number = self.some(30)
        start = self.rng.randrange(max(1, len(self.code) - number))
        return "\n".join(self.code[start : start + number])

    def table(self) -> str:
        between = self.rng.choice((",", ", ", "\t", " | ", ";", "   "))
        kinds = self.rng.choices((self.word, self.amount, self.date, self.name, self.digits), k=self.some(6))
        return "\n".join(between.join(kind()[:20] for kind in kinds) for _ in range(self.some(8)))

    def record(self) -> str:
        values: dict[str, object] = {self.word(): self.rng.choice((self.amount, self.name, self.word))() for _ in "abc"}
        lines = "\n".join(f"{key}: {value}" for key, value in values.items())
        return self.rng.choice((json.dumps(values, ensure_ascii=False), json.dumps(values, indent=2), lines))

    def letter(self) -> str:
        head = (
            f"From: {self.email()}\nTo: {self.name()} <{self.email()}>\nSubject: {self.phrase()}\nDate: {self.date()}"
        )
        body = f"Dear {self.name()},\n\n{self.phrase()} {self.phrase()}\n\nBest,\n{self.name()}"
        return self.rng.choice((head, body, f"{head}\n\n{body}"))

    # --- other characters ------------------------------------------------------------------------------------------

    def foreign(self) -> str:
        letters = self.rng.choice([*_ALPHABETS.values()])
        spaced = len(letters) < 100
        words = ("".join(self.rng.choices(letters, k=self.some(10))) for _ in range(self.some(12)))
        return (" " if spaced else self.rng.choice(("", "、", "。", " "))).join(words)

    def emoji(self) -> str:
        return "".join(self.rng.choices(self.rng.choice((_EMOJI, _EMOJI, _SYMBOLS)), k=self.some(12)))

    def blanks(self) -> str:
        return "".join(self.rng.choice((" ", "\n", "\t", "\r\n")) * self.some(40) for _ in range(self.some(4)))

    def characters(self) -> str:
        return "".join(self.rng.choices(string.printable[:95], k=self.some(60)))

    def some(self, most: int) -> int:
        """A number from 1 to `most`, small ones more often."""
        return int(most ** self.rng.random() + 0.5)


def everyday_documents(
    words: Sequence[str], num_bytes: int, seed: int = 0, kind: str | None = None
) -> Iterator[Document]:
    """Pieces of everyday text, until there are `num_bytes` of it; `words` are a corpus's own.

    Always the same with the same words and Python, whose source is part of it. With a `kind`, such as `letter`, that
    alone.
    """
    writer = _Writer(words, random.Random(seed))
    if kind is not None:
        writer.kinds = (getattr(writer, kind),)
    number = 0
    while num_bytes > 0:
        if text := writer.document():
            yield Document(f"everyday/{number}", text)
        number, num_bytes = number + 1, num_bytes - len(text.encode())
