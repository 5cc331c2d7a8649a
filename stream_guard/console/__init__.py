"""The console: pages in a browser for reviewers, authors and people who watch the stream. Never in the judging loop.

May import: everything below it. A page is a module in ``pages``, with templates, texts and routes, each of which names
the role that it needs.
"""
