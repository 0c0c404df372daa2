"""No subject of its own: console messages, files, HTML and Markdown."""
