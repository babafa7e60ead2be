"""The explorer: one page in the browser, on this machine, that shows what memories and embeddings hold.

`page` puts the tabs together; each tab has a file for what it computes (`change`, `given_back`, `book`, `answers`) and one for how
it looks and reacts (`write_tab`, `embedding_tab`, `book_tab`). `shown` and `curve` write HTML, `jobs` lets long work be
watched and stopped.
"""
