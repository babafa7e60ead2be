"""Result files → one page (HTML, Markdown) and the terminal. No torch here: a report needs files, not models."""
