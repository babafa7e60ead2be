"""What the page explores: a model, a reader, and the work that runs for each open page."""

import atexit
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

import memlm
from memlm.app.jobs import Jobs
from memlm.runtime.files import BOXED_READER
from memlm.text.autoencoder import TextAutoencoder
from memlm.text.memory_reader import TextMemoryReader


@cache
def own_folder() -> Path:
    """Of the files that are dropped or made here; it is gone when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="memlm-app-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@dataclass(kw_only=True)
class Explorer:
    """What all tabs share."""

    model: TextAutoencoder
    name: str = "english"
    """Of the model."""
    reader_name: str = BOXED_READER
    device: str | None = None
    jobs: Jobs = field(default_factory=Jobs)
    reading: Lock = field(default_factory=Lock)
    """Held while the language model answers: its adapters are switched."""
    _reader: TextMemoryReader | None = None

    def reader(self) -> TextMemoryReader:
        """The reader, loaded when it is first asked for.

        Raises:
            ValueError: it is not there, or its language model is not; or that has no chats. Says which.
        """
        if self._reader is None:
            reader = memlm.load_reader(self.reader_name, device=self.device)
            # What else it loads, and torch's first steps, are in nobody's time to the first token.
            reader.pasts(reader.encoder.encode(["Hello."]))
            reader.chat(None, "Hello.", max_new_tokens=1)
            self._reader = reader
        return self._reader
