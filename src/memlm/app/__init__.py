"""The explorer: one page in the browser, on this machine, that shows what memories and embeddings hold.

`page` puts the tabs together. What a tab computes (`change`; `given_back`; `book`, `answers`) is apart from how it
looks and reacts (`write_tab`; `embedding_tab`; `book_tab`). `shown` and `curve` write HTML; `jobs` lets long work be
watched and stopped.
"""
